/* What the files of test_kernels share: the two tables, and the tests that main() lists. */
#ifndef TEST_KERNELS_H
#define TEST_KERNELS_H

#include "kernels_data.h"

extern const struct m2se_kernels *k;      /* the table under test */
extern const struct m2se_kernels *scalar; /* what it is compared with */

/* Two buffers of the same content, for the two tables. */
struct pair {
  float *got, *want;
  size_t n;
};

struct pair pair_new(size_t n, float scale);
/* |got - want| <= tolerance (1 + |want|), element by element; then freed. */
void pair_check(struct pair p, float tolerance, const char *what);
/* The same bits in both; then freed. */
void pair_check_bits(struct pair p, const char *what);

enum { WIDTHS = 22 };
extern const size_t widths[WIDTHS];

void test_gelu(void **state);
void test_inference(void **state);
void test_experts(void **state);
void test_addnorm(void **state);
void test_embed(void **state);
void test_attention(void **state);
void test_nip(void **state);
void test_nip_alone(void **state);
void test_nip_extremes(void **state);
void test_nip_products(void **state);
void test_cmcl(void **state);
void test_cmcl_alone(void **state);
void test_division_of_rows(void **state);

#endif
