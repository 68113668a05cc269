# Which kernels run at which matrix: forward, the gradient through it (dgrad), the gradient of it (wgrad), the adapter's.
W = 1200; H = 640
load 'plots/style.gp'
set multiplot title 'Where gradients flow: the loss is at the top, the first layer at the bottom' font ',17'
unset grid; unset border
set tics scale 0
unset ytics
set xrange [-0.6:3.6]; set yrange [-0.6:16.6]
set xtics ("forward" 0, "dgrad:\nthrough W" 1, "wgrad:\nof W" 2, "of A\nand B" 3) font ',11'
set style fill solid 1 border lc rgb '#fcfcfa'
set tmargin at screen 0.86; set bmargin at screen 0.13
file = dir.'/flow.csv'
fill(word, tone) = word eq 'run' ? tone : 0xe8ecf0
sign(word, yes) = word eq 'run' ? yes : word eq 'skipped' ? 'skipped' : '-'
set label 1 'skipped: the weight is frozen.   -: not even recorded, for nothing below trains.' at screen 0.12,0.025 textcolor rgb soft
do for [way=0:2] {
    set lmargin at screen 0.12 + 0.295 * way; set rmargin at screen 0.40 + 0.295 * way
    rows(way) = sprintf('< sed -n "%d,%dp" %s/flow.csv', 2+17*way, 18+17*way, dir)
    set title way == 0 ? 'full training' : way == 1 ? 'LoRA on every c_attn' : "LoRA on the top block's c_attn"
    plot rows(way) using (0):0:(0.45):(0.42):(weights) with boxxyerror fc rgb variable, \
         '' using (1):0:(0.45):(0.42):(fill(stringcolumn(4), ice)) with boxxyerror fc rgb variable, \
         '' using (2):0:(0.45):(0.42):(fill(stringcolumn(5), warm)) with boxxyerror fc rgb variable, \
         '' using (3):($6 > 0 ? $0 : NaN):(0.45):(0.42):(adapters) with boxxyerror fc rgb variable, \
         '' using (way == 0 ? -0.55 : NaN):0:2 with labels right textcolor rgb ink, \
         '' using (0):0:('x W') with labels font ',10' textcolor rgb ink, \
         '' using (1):0:(sign(stringcolumn(4), 'dy W^T')):(stringcolumn(4) eq 'run' ? 0xffffff : soft) with labels font ',10' textcolor rgb variable, \
         '' using (2):0:(sign(stringcolumn(5), 'x^T dy')):(stringcolumn(5) eq 'run' ? 0xffffff : soft) with labels font ',10' textcolor rgb variable, \
         '' using (3):($6 > 0 ? $0 : NaN):('dA, dB') with labels font ',10' textcolor rgb 'white'
}
unset multiplot
