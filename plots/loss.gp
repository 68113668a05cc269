# The loss of each step of ./demo: the base, and from it the three runs.
W = 1000; H = 420
load 'plots/style.gp'
set key outside right textcolor rgb ink
set yrange [0:*]
set xlabel 'step' textcolor rgb soft
set ylabel 'training loss, nats a character' textcolor rgb soft
array tones[4] = [ink, soft, warm, kept]
array names[4] = ['pretraining', 'full', 'c_attn', 'all']
pick(run) = stringcolumn(1) eq run ? column(3) : NaN
set datafile missing NaN
plot for [i=1:4] dir.'/loss.csv' using 2:(pick(names[i])) smooth bezier lw 2 lc rgb tones[i] title names[i]
