#!/bin/sh
# draw.sh DIR [NAME...] - draws the CSV files in DIR, each plot as SVG and as PNG, if gnuplot is installed. Without names, all
# that `make plots` has the numbers for.

dir=$1
shift
if ! command -v gnuplot > /dev/null 2>&1; then
    echo "plots: no gnuplot here, so nothing is drawn (install gnuplot-nox); the numbers are in $dir/*.csv"
    exit 0
fi
for name in ${*:-timeline bytes context flow learning grid}; do
    for kind in svg png; do
        gnuplot -e "dir='$dir'; name='$name'; kind='$kind'" "plots/$name.gp" > "$dir/gnuplot.log" 2>&1
        if [ $? -ne 0 ] || [ -s "$dir/gnuplot.log" ]; then # gnuplot only warns where data are missing
            echo "plots: $dir/$name.$kind could not be drawn: $(grep -v '^[ ^]*$' "$dir/gnuplot.log" | tail -n 1)" >&2
            rm -f "$dir/$name.$kind"
            exit 1
        fi
    done
    echo "$dir/$name.svg, .png"
done
rm -f "$dir/gnuplot.log"
