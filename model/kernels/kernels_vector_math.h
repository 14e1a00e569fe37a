/* exp and the normal distribution over vectors. Coefficients are our own minimax fits. */
#ifndef M2SE_KERNELS_VECTOR_MATH_H
#define M2SE_KERNELS_VECTOR_MATH_H

#include "model/kernels/kernels_vector_isa.h"

/* e^x. Relative error below 1e-7 where the result is a normal number below 2^127.5; smaller results are 0,
 * larger ones infinity; exp(0) == 1; NaN stays NaN.
 *
 * x = n ln 2 + r with |r| <= ln(2) / 2; adding 1.5 * 2^23 rounds to the integer n and leaves it in the low
 * bits, from where it is shifted into the exponent of a factor 2^n. */
INLINE vf v_exp(vf x) {
  const vf magic = v_set(0x1.8p23f);
  const vf lowest = v_set(-0x1.5d589ep6f); /* ln 2^-126: below, n would leave the exponent's range */
  const vf bounded = v_min(v_set(88.5f), x);
  const vf t = v_fma(bounded, v_set(1.44269504f), magic);
  const vf n = t - magic;
  vf r = v_fma(n, v_set(-0x1.62e430p-1f), bounded);
  r = v_fma(n, v_set(0x1.05c610p-29f), r);
  vf p = v_fma(r, v_set(1.38145405799e-3f), v_set(8.36874544621e-3f));
  p = v_fma(p, r, v_set(4.16683889925e-2f));
  p = v_fma(p, r, v_set(1.66665211320e-1f));
  p = v_fma(p, r, v_set(4.99999940395e-1f));
  p = v_fma(p, r, v_set(1.0f));
  p = v_fma(p, r, v_set(1.0f));
  const vf power = (vf)(((vu)t << 23) + 0x3f800000u);
  return v_where_not(vm_less(x, lowest), p * power);
}

INLINE float exp_one(float x) {
  return v_exp(v_set(x))[0];
}

/* Phi(-|u|) / e where e = exp(-u^2 / 2): a Mills ratio, smooth and slowly falling, hence a quotient of
 * polynomials with positive coefficients (relative error 1e-8 up to |u| = 13.3, beyond which e is 0). */
INLINE vf v_normal_tail_ratio(vf u) {
  const vf z = v_min(v_set(14), v_abs(u)); /* so that neither polynomial overflows */
  vf p = v_fma(z, v_set(3.990833391179043e-3f), v_set(3.979922292370773e-2f));
  p = v_fma(p, z, v_set(1.8077702190020403e-1f));
  p = v_fma(p, z, v_set(4.3500077631477524e-1f));
  p = v_fma(p, z, v_set(0.5f));
  vf q = v_fma(z, v_set(1.0003389367334914e-2f), v_set(9.976938489639268e-2f));
  q = v_fma(q, z, v_set(4.6297612039021063e-1f));
  q = v_fma(q, z, v_set(1.1923314280998363f));
  q = v_fma(q, z, v_set(1.6678863555937735f));
  q = v_fma(q, z, v_set(1.0f));
  return p / q;
}

/* Phi(u), given e = exp(-u^2 / 2). Absolute error below 1e-7; for negative u also relative to Phi(u), up to
 * the rounding of u^2. */
INLINE vf v_normal_cdf(vf u, vf e) {
  const vf tail = e * v_normal_tail_ratio(u);
  return v_select(vm_less(u, v_set(0)), tail, v_set(1.0f) - tail);
}

#endif
