/* exp and what GELU is made of, over vectors. Coefficients are our own minimax fits. */
#ifndef M2SE_KERNELS_VECTOR_MATH_H
#define M2SE_KERNELS_VECTOR_MATH_H

#include "model/kernels/kernels_vector_isa.h"

/* Added to a number below 2^22, this rounds it to an integer and leaves that in the low bits of the sum. */
#define ROUNDING 0x1.8p23f

/* e^r 2^n for |r| <= ln(2) / 2 and t = n + ROUNDING, -126 <= n <= 127. */
INLINE vf exp_scaled(vf r, vf t) {
  vf p = v_fma(r, v_set(1.38145405799e-3f), v_set(8.36874544621e-3f));
  p = v_fma(p, r, v_set(4.16683889925e-2f));
  p = v_fma(p, r, v_set(1.66665211320e-1f));
  p = v_fma(p, r, v_set(4.99999940395e-1f));
  p = v_fma(p, r, v_set(1.0f));
  p = v_fma(p, r, v_set(1.0f));
  return p * (vf)(((vu)t << 23) + 0x3f800000u); /* n goes into the exponent */
}

/* e^x. Relative error below 1.2e-7 where the result is a normal number below 2^127.5; smaller results are 0,
 * larger ones infinity; exp(0) == 1; NaN stays NaN. */
INLINE vf v_exp(vf x) {
  const vf lowest = v_set(-0x1.5d589ep6f); /* ln 2^-126 */
  const vf bounded = v_min(v_set(88.5f), x);
  const vf t = v_fma(bounded, v_set(1.44269504f), v_set(ROUNDING));
  const vf n = t - ROUNDING;
  vf r = v_fma(n, v_set(-0x1.62e430p-1f), bounded); /* - n ln 2, in two parts */
  r = v_fma(n, v_set(0x1.05c610p-29f), r);
  return v_where_not(vm_less(x, lowest), exp_scaled(r, t));
}

INLINE float exp_one(float x) {
  return v_exp(v_set(x))[0];
}

/* |x| as the two functions below take it: bounded, so that no polynomial overflows where the tail is 0
 * anyway. */
INLINE vf v_tail_argument(vf x) {
  return v_min(v_set(14), v_abs(x));
}

/* c[0] + c[1] z + ... + c[8] z^8, summed in pairs: a chain half as long as one term after the other. */
INLINE vf polynomial_8(vf z, const float c[9]) {
  const vf z2 = z * z;
  const vf low = v_fma(z, v_set(c[3]), v_set(c[2]));
  const vf middle = v_fma(z, v_set(c[5]), v_set(c[4]));
  const vf high = v_fma(z2, v_set(c[8]), v_fma(z, v_set(c[7]), v_set(c[6])));
  const vf rest = v_fma(z2 * z2, high, v_fma(z2, middle, low));
  return v_fma(z2, rest, v_fma(z, v_set(c[1]), v_set(c[0])));
}

/* log2 Phi(-z), of the tail of the normal distribution, for 0 <= z <= 14: smooth, and falling without end.
 * Exactly -1 at 0; elsewhere so that the tail has an absolute error below 1e-7 / (1 + z). */
INLINE vf v_log2_tail(vf z) {
  static const float c[9] = {-1.0f,
                             -1.151106406838025f,
                             -4.591956769206407e-1f,
                             -5.2539266034441395e-2f,
                             7.131780458339117e-3f,
                             -1.9325777853073994e-4f,
                             -1.6142162787824072e-4f,
                             3.3898651092790644e-5f,
                             -2.357512442949891e-6f};
  return polynomial_8(z, c);
}

/* 1 - z phi(z) / Phi(-z): the derivative of z Phi(-z), divided by Phi(-z). Times Phi(-z) the error is below
 * 1e-7. */
INLINE vf v_tail_slope(vf z) {
  static const float c[9] = {1.0f,
                             -7.9789022551441e-1f,
                             -6.365370445820538e-1f,
                             -1.0940414349593656e-1f,
                             2.001794104399105e-2f,
                             -8.737770358739883e-4f,
                             -5.80627280067161e-4f,
                             1.4419417154544585e-4f,
                             -1.128839489891614e-5f};
  return polynomial_8(z, c);
}

/* 2^y for y below 127; 0 below -126. */
INLINE vf v_exp2(vf y) {
  const vf t = y + ROUNDING;
  const vf r = (y - (t - ROUNDING)) * 0x1.62e430p-1f;
  return v_where_not(vm_less(y, v_set(-126)), exp_scaled(r, t));
}

#endif
