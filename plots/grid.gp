# Rank and scale: the loss after the same short training of an adapter on c_attn, four windows a step.
W = 760; H = 560
load 'plots/style.gp'
set title 'Validation loss after 60 steps of LoRA on c_attn (rate 0.01)'
unset grid; unset border
set tics scale 0
set xlabel 'rank r' textcolor rgb soft
set ylabel 'scale s = alpha / r' textcolor rgb soft
log2(x) = log(x)/log(2)
set xrange [-0.5:4.5]; set yrange [-1.5:3.5]
set xtics ('1' 0, '2' 1, '4' 2, '8' 3, '16' 4)
set ytics ('0.5' -1, '1' 0, '2' 1, '4' 2, '8' 3)
set palette defined (0 '#7a2f04', 0.35 '#c2500f', 0.7 '#f0b27a', 1 '#fdeadf')
set cblabel 'nats a character; darker is better' textcolor rgb soft
file = dir.'/grid.csv'
stats file every ::1 using 4 nooutput
low = STATS_min; middle = (STATS_min + STATS_max) / 2
set cbrange [low:STATS_max]
plot file every ::1 using (log2($1)):(log2($2)):4 with image pixels, \
     '' every ::1 using (log2($1)):(log2($2)):(sprintf('%.3f', $4)):($4 < middle ? 0xffffff : ink) with labels font ',14' textcolor rgb variable
