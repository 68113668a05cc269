# Bytes by length of context: activations grow, what LoRA saves does not. Where they cross, activations are the larger part.
W = 1200; H = 640
load 'plots/style.gp'
set multiplot layout 2,3 title 'What LoRA saves, and the activations that it keeps (32-bit)' font ',17'
file = dir.'/context.csv'; crossings = dir.'/crossover.csv'
set format x '%.0s%c'
set xlabel 'context, tokens' textcolor rgb soft
set lmargin 10; set rmargin 3
array names[5] = ["the demo's model, 12 windows", 'gpt2-124m, one window', 'gpt-7b, one window', 'gpt-65b, one window', 'gpt3-175b, one window']
set tics font ',11'
do for [i=0:4] {
    set xrange [*:*]; set yrange [*:*]
    stats crossings every ::(i+1)::(i+1) using 3 nooutput; T = STATS_max
    stats crossings every ::(i+1)::(i+1) using 4 nooutput; bytes = STATS_max
    stats file every ::(1+32*i)::(32+32*i) using 3 nooutput; top = STATS_max
    stats file every ::(1+32*i)::(32+32*i) using 5 nooutput; most = STATS_max
    unit = most > 1e12 ? 1e12 : most > 1e9 ? 1e9 : 1e6
    set ylabel unit == 1e12 ? 'TB' : unit == 1e9 ? 'GB' : 'MB' textcolor rgb soft
    set title names[i+1]
    set xrange [0:top]; set yrange [0:most/unit*1.02]
    set xtics top/4
    unset label; unset arrow
    set arrow 1 from T,0 to T,bytes/unit nohead dt 2 lc rgb soft
    set label 1 sprintf('%.0f tokens', T) at T,0 offset 0.8,0.6 font ',12' textcolor rgb ink
    set label 4 '' at T,bytes/unit point pt 7 ps 0.9 lc rgb ink front
    set label 2 "activations kept,\nLoRA" at 0.86*top,0.86*most/unit right offset -2,0.8 textcolor rgb kept
    set label 3 'saved by LoRA' at 0.98*top,bytes/unit right offset 0,-0.8 textcolor rgb warm
    plot file every ::(1+32*i)::(32+32*i) using 3:($5/unit) with lines lw 3 lc rgb kept, \
         '' every ::(1+32*i)::(32+32*i) using 3:($6/unit) with lines lw 3 lc rgb warm
}
unset border; unset tics; unset grid; unset xlabel; unset ylabel; unset title; unset arrow; unset label
set xrange [0:1]; set yrange [0:1]
set label 1 "Left of the dashed line\nthe saving is larger.\n\nRight of it the activations are,\nand LoRA keeps them: recompute\nthe blocks, or take fewer windows." at -0.1,0.8 textcolor rgb ink font ',12'
plot NaN
unset multiplot
