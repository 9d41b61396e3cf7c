// infer/base/tails.c - incomplete gamma by series and continued fraction, incomplete beta by
// continued fraction (Lentz), both in double.
#include "infer/base/tails.h"

#include <math.h>

#include "infer/base/err.h"

enum { TERMS = 100000 };
static const double tiny = 1e-300, enough = 1e-15;

// Lentz's running fraction: one more term b + a / ...; returns the factor it changes the value by.
static double lentz(double *c, double *d, double a, double b) {
    *d = b + a * *d;
    *c = b + a / *c;
    if (fabs(*d) < tiny) *d = tiny;
    if (fabs(*c) < tiny) *c = tiny;
    *d = 1.0 / *d;
    return *c * *d;
}

// Q(a, x) = Gamma(a, x) / Gamma(a).
static double gamma_upper(double a, double x) {
    const double front = exp(a * log(x) - x - lgamma(a));
    if (x < a + 1.0) {
        double term = 1.0 / a, sum = term;
        for (int i = 1; i < TERMS && term > sum * enough; i++) sum += term *= x / (a + i);
        return 1.0 - sum * front;
    }
    double b = x + 1.0 - a, c = 1.0 / tiny, d = 1.0 / b, h = d;
    for (int i = 1; i < TERMS; i++) {
        const double step = lentz(&c, &d, -i * (i - a), b += 2.0);
        h *= step;
        if (fabs(step - 1.0) < enough) break;
    }
    return h * front;
}

double chi_square_upper(double x, double df) {
    CHECK(df > 0.0);
    return x > 0.0 ? gamma_upper(df / 2.0, x / 2.0) : 1.0;
}

// I_x(a, b) for x < (a + 1) / (a + b + 2), where the fraction converges fast.
static double beta_fraction(double a, double b, double x) {
    double c = 1.0, d = 1.0 - (a + b) * x / (a + 1.0);
    if (fabs(d) < tiny) d = tiny;
    d = 1.0 / d;
    double h = d;
    for (int m = 1; m < TERMS; m++) {
        const double n = a + 2 * m;
        h *= lentz(&c, &d, m * (b - m) * x / ((n - 1.0) * n), 1.0);
        const double step = lentz(&c, &d, -(a + m) * (a + b + m) * x / (n * (n + 1.0)), 1.0);
        h *= step;
        if (fabs(step - 1.0) < enough) break;
    }
    const double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    return front * h / a;
}

double student_upper(double t, double df) {
    CHECK(df > 0.0);
    if (t == 0.0) return 0.5;
    if (isinf(t)) return t > 0.0 ? 0.0 : 1.0;
    const double x = df / (df + t * t), a = df / 2.0, b = 0.5;
    const double half =
        0.5 * (x < (a + 1.0) / (a + b + 2.0) ? beta_fraction(a, b, x)
                                             : 1.0 - beta_fraction(b, a, t * t / (df + t * t)));
    return t > 0.0 ? half : 1.0 - half;
}
