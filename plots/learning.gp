# Loss curves: the base on its tales, then three ways to teach it the pirate's.
W = 1200; H = 480
load 'plots/style.gp'
set multiplot layout 1,2 title 'Learning: validation loss (lines) and the loss of each step (dots)' font ',17'
file = dir.'/learning.csv'
stats dir.'/floor.csv' every ::1::1 using 2 nooutput; tales = STATS_max
stats dir.'/floor.csv' every ::2::2 using 2 nooutput; pirate = STATS_max
word2(i) = i == 1 ? 'full' : i == 2 ? 'LoRA c_attn' : 'LoRA all 4'
tone(i) = i == 1 ? soft : i == 2 ? warm : kept
pick(run, c) = stringcolumn(1) eq run ? column(c) : NaN
set ylabel 'nats a character' textcolor rgb soft
set xlabel 'step' textcolor rgb soft
set yrange [0:4]
set datafile missing NaN
set title 'the base reads tales'
set xrange [0:500]
set label 1 sprintf('floor %.3f: no model can be better', tales) at 15,tales offset 0,0.6 textcolor rgb ice
plot file using 2:(pick('base',4)) with points pt 7 ps 0.2 lc rgb soft, '< grep "^base,[0-9]*,[0-9]" '.file using 2:3 with lines lw 3 lc rgb ink, tales lw 2 dt 2 lc rgb ice
set title "the same base learns the pirate's way"
set xrange [0:150]
set label 1 sprintf('floor %.3f', pirate) at 4,pirate offset 0,0.6 textcolor rgb ice
set key inside top right samplen 2 textcolor rgb ink
plot for [i=1:3] file using 2:(pick(word2(i),4)) with points pt 7 ps 0.2 lc rgb tone(i) notitle, \
     for [i=1:3] '< grep "^'.word2(i).',[0-9]*,[0-9]" '.file using 2:3 with lines lw 3 lc rgb tone(i) title word2(i), pirate lw 2 dt 2 lc rgb ice notitle
unset multiplot
