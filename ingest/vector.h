/* Vectors as they stand in Redis: float32, or float16 (IEEE 754 binary16, rounded to the nearest, ties to
 * even), little-endian. Pure; any thread.
 */
#ifndef M2SE_VECTOR_H
#define M2SE_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { M2SE_VECTOR_DIM_MAX = 8192 };

/* In the order of the words of serve.vector_type. */
enum m2se_vector_type { M2SE_VECTOR_FLOAT32, M2SE_VECTOR_FLOAT16 };

const char *m2se_vector_type_name(enum m2se_vector_type type);
size_t m2se_vector_bytes(enum m2se_vector_type type, uint32_t dim);

/* bytes: [m2se_vector_bytes], any alignment. False: a component is not finite, or would not be one as a
 * float16 (65520 and more); what was written is of no use. */
bool m2se_vector_encode(enum m2se_vector_type type, const float *vector, uint32_t dim, void *bytes);

/* The length tells the type, for a reader who knows how many numbers there are (field `dim` of the model).
 * False: size fits neither type; vector, [dim], is untouched. */
bool m2se_vector_decode(const void *bytes, size_t size, uint32_t dim, float *vector);

/* The parts of the two above for float16, for tests: with the CPU's instructions (F16C), if it has them, or
 * without. */
bool m2se_vector_has_f16c(void);
void m2se_vector_to_half(const float *from, uint16_t *to, uint32_t count, bool f16c);
void m2se_vector_from_half(const uint16_t *from, float *to, uint32_t count, bool f16c);

#endif
