/* The number type of the network: float in the product, double in the library that the gradient checks use.
 * One source, two builds: `m2se` (float) and `m2se_double` (compiled with M2SE_DOUBLE). */
#ifndef M2SE_REAL_H
#define M2SE_REAL_H

#ifdef M2SE_DOUBLE
typedef double m2se_real;
#else
typedef float m2se_real;
#endif

#endif
