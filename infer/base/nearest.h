// infer/base/nearest.h - the name a mistyped one was probably meant to be.
#ifndef BASE_NEAREST_H
#define BASE_NEAREST_H

// Edit distance with swapped neighbours counted once; names longer than 95 characters count as far.
int edit_distance(const char *a, const char *b);
// Offers `candidate`: becomes *best when nearer to `name` than *best (NULL: nothing yet) and near
// enough to be worth showing.
void nearest_offer(const char *name, const char *candidate, const char **best);

#endif
