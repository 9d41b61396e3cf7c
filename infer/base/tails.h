// infer/base/tails.h - upper tails of the distributions that the checks' verdicts rest on.
#ifndef BASE_TAILS_H
#define BASE_TAILS_H

// P(X >= x) of chi-square with df > 0 degrees of freedom; 1 for x <= 0. Relative error below 1e-9
// where the result is above 1e-280.
double chi_square_upper(double x, double df);
// P(T >= t) of Student's t with df > 0 degrees of freedom.
double student_upper(double t, double df);

#endif
