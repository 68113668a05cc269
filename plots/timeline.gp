# Bytes over one step, stacked by kind, on one scale.
W = 1200; H = 460
load 'plots/style.gp'
set multiplot layout 1,3 title 'Bytes over one training step' font ',17'
set ytics 10
set xtics 100
set xlabel 'changes of the ledger' textcolor rgb soft
# columns 3 to 10: the kinds, in the order of web/kinds.csv
total(n) = sum [k=3:n+2] column(k)
array color[8]; array names[8]
do for [k=1:8] { color[k] = int('0x'.substr(kind_line(k, 3), 2, 7)); names[k] = kind_line(k, 2) }
do for [way in 'full lora recompute'] {
    file = dir.'/timeline_'.way.'.csv'
    set xrange [*:*]; set yrange [*:*] # stats would leave out what is beyond
    stats file using (total(8)) nooutput
    most = STATS_max; at = STATS_index_max; rows = STATS_records
    stats file using (stringcolumn(1) eq 'backward' ? $0 : NaN) nooutput
    turn = STATS_min
    set xrange [0:rows]; set yrange [0:42]
    set title way eq 'full' ? 'full: all weights train' : way eq 'lora' ? 'LoRA on c_attn' : 'LoRA, blocks recomputed'
    set ylabel way eq 'full' ? 'MB' : '' textcolor rgb soft
    if (way eq 'recompute') { set key at graph 0.06,0.99 left top reverse Left samplen 0.8 spacing 1.15 font ',11' textcolor rgb ink } else { unset key }
    unset label; unset arrow
    set label 1 sprintf('peak %.1f MB', most/1e6) at at,most/1e6 center offset 0,0.9 font ',13' textcolor rgb ink point pt 7 ps 0.8 lc rgb ink
    set arrow 1 from turn,0 to turn,most/1e6 nohead dt 2 lc rgb 'white' front
    set label 2 'forward' at turn/2,1.5 center textcolor rgb ink font ',11' front
    set label 3 'backward' at (turn+rows)/2,1.5 center textcolor rgb ink font ',11' front
    if (way ne 'recompute') { set label 4 'kept activations' at turn+25,(way eq 'full' ? 17 : 9) center textcolor rgb 'white' font ',12' front }
    if (way eq 'full') { set label 5 'moments' at turn+25,6.5 center textcolor rgb 'white' font ',12' front }
    plot for [n=8:1:-1] file using 0:(total(n)/1e6) with filledcurves y1=0 fc rgb color[n] title names[n]
}
unset multiplot
