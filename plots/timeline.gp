# Bytes over one step, stacked by kind, on one scale.
W = 1200; H = 460
load 'plots/style.gp'
set multiplot layout 1,3 title 'Bytes over one training step' font ',17'
set ytics 10
set xtics 100
set xlabel 'changes of the ledger' textcolor rgb soft
# columns 3 to 10: weights, adapters, parameter_gradients, moments, kept, live, activation_gradients, workspace
total(n) = (n > 0 ? column(3) : 0) + (n > 1 ? column(4) : 0) + (n > 2 ? column(6) : 0) + (n > 3 ? column(7) : 0) + \
           (n > 4 ? column(8) : 0) + (n > 5 ? column(9) : 0) + (n > 6 ? column(10) : 0) + (n > 7 ? column(5) : 0)
array color[8] = [weights, adapters, moments, kept, live, activation_gradients, workspace, gradients]
array names[8] = ['weights', 'adapters', 'moments', 'activations kept for backward', 'activations in passing', 'activation gradients', \
                  'workspace', 'gradients of what trains']
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
    if (way ne 'recompute') { set label 4 'activations kept' at turn+25,(way eq 'full' ? 17 : 9) center textcolor rgb 'white' font ',12' front }
    if (way eq 'full') { set label 5 'moments' at turn+25,6.5 center textcolor rgb 'white' font ',12' front }
    plot for [n=8:1:-1] file using 0:(total(n)/1e6) with filledcurves y1=0 fc rgb color[n] title names[n]
}
unset multiplot
