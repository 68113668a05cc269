#!/bin/sh
# draw.sh DIR - draws the CSV files in DIR, each plot as SVG and as PNG, if gnuplot is installed.

dir=$1
if ! command -v gnuplot > /dev/null 2>&1; then
    echo "plots: no gnuplot here, so nothing is drawn; install gnuplot-nox. The numbers are in:" "$dir"/*.csv
    exit 0
fi
for name in timeline bytes context flow learning grid; do
    for kind in svg png; do
        if ! gnuplot -e "dir='$dir'; name='$name'; kind='$kind'" "plots/$name.gp" > "$dir/gnuplot.log" 2>&1; then
            echo "plots: $dir/$name.$kind could not be drawn: $(grep -v '^ *$' "$dir/gnuplot.log" | tail -n 1)" >&2
            exit 1
        fi
        [ -s "$dir/gnuplot.log" ] && sed "s|^|$name: |" "$dir/gnuplot.log" >&2
    done
    echo "$dir/$name.svg  $dir/$name.png"
done
rm -f "$dir/gnuplot.log"
