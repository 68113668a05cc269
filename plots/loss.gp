# The loss of each step of ./demo: the base, and from it the four runs.
W = 1000; H = 420
load 'plots/style.gp'
set key outside right textcolor rgb ink
set yrange [0:*]
set xlabel 'step' textcolor rgb soft
set ylabel 'training loss, nats a character' textcolor rgb soft
array tones[5] = [ink, soft, warm, ice, kept]
array names[5] = ['pretraining', 'full', 'c_attn', 'c_attn_codes', 'all']
pick(run) = stringcolumn(1) eq run ? column(3) : NaN
set datafile missing NaN
plot for [i=1:5] dir.'/loss.csv' using 2:(pick(names[i])) smooth bezier lw 2 lc rgb tones[i] title names[i]
