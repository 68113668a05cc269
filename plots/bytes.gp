# Predicted and measured bytes at the peak of a step, kind by kind, full training against LoRA.
W = 1000; H = 520
load 'plots/style.gp'
set title 'Bytes at the peak of a step: measured (bars) and predicted by arithmetic (outlines)'
set ylabel 'MB' textcolor rgb soft
set yrange [0:32]
set xrange [-0.6:7.6]
set xtics scale 0 noenhanced font ',11' textcolor rgb ink
set label 1 'full training' at 5,25 textcolor rgb soft font ',14'
set label 2 'LoRA on c_attn, r = 8' at 5,23.3 textcolor rgb warm font ',14'
set bmargin 4
set style fill solid 1 noborder
file = dir.'/bytes.csv'
mb(x) = x < 1000 ? sprintf('%.0f B', x) : x < 1e6 ? sprintf('%.0f kB', x/1e3) : sprintf('%.2f MB', x/1e6)
plot file every ::1 using ($0-0.2):($3/1e6):(0.36):xtic(kind_name(stringcolumn(1))) with boxes fc rgb soft, \
     '' every ::1 using ($0+0.2):($5/1e6):(0.36) with boxes fc rgb warm, \
     '' every ::1 using ($0-0.2):($2/1e6):(0.4) with boxes fs empty border rgb ink, \
     '' every ::1 using ($0+0.2):($4/1e6):(0.4) with boxes fs empty border rgb ink, \
     '' every ::1 using ($0-0.2):($3/1e6):(mb($3)) with labels rotate by 90 left offset 0,0.4 font ',11' textcolor rgb ink, \
     '' every ::1 using ($0+0.2):($5/1e6):(mb($5)) with labels rotate by 90 left offset 0,0.4 font ',11' textcolor rgb warm
