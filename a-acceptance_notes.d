acceptance_notes.o: eval/count/acceptance_notes.h \
 eval/count/acceptance_read.h
