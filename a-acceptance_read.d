acceptance_read.o: eval/count/acceptance_read.h
