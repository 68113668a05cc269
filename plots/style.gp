# style.gp - what all plots share. Expects `dir`, `name` and `kind` (svg or png); each plot sets its size first with set_size.
# Colours tell kinds of bytes apart for colour-blind eyes too: frozen and fixed things are ice blue, what trains is warm.
if (kind eq 'svg') {
    set terminal svg size W,H font 'DejaVu Sans,13' background rgb '#fcfcfa' noenhanced
} else {
    set terminal pngcairo size 2*W,2*H font 'DejaVu Sans,13' fontscale 2 linewidth 2 pointscale 2 background rgb '#fcfcfa' noenhanced
}
set output dir.'/'.name.'.'.kind
set datafile separator ','
set border 3 lc rgb '#55606e'
set tics nomirror out textcolor rgb '#1b2430'
set grid y lc rgb '#d6dbe1' lw 1 lt 1
set title font ',15' textcolor rgb '#1b2430'
unset key
# Kinds of bytes: name, colour and order are those of web/kinds.csv.
kind_line(n, field) = system(sprintf("awk -F, 'NR == %d { print $%d }' web/kinds.csv", n + 1, field))
kind_name(k) = system("awk -F, '$1 == \"".k."\" { sub(\" \", \"\\n\", $2); print $2 }' web/kinds.csv")
kind_colour(k) = int(system("awk -F, '$1 == \"".k."\" { sub(\"#\", \"0x\", $3); print $3 }' web/kinds.csv"))
weights = kind_colour('weights'); adapters = kind_colour('adapters'); gradients = kind_colour('parameter_gradients')
kept = kind_colour('kept_activations')
ink = 0x1b2430; soft = 0x55606e; ice = 0x4f86b3; warm = 0xc2500f
