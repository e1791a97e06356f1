#!/bin/bash
V=/work/main/target/vm/kernels; K=${K:-6.12}
cd /tmp/q; bash ./run $V/$K.*/boot/vmlinuz-* $V/$K.*/; grep '^S ' /tmp/q/last.log
