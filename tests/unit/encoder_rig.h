/* What the tests of BERT and CLIP share: the fixtures' expected numbers, and folders with something wrong. */
#ifndef ENCODER_RIG_H
#define ENCODER_RIG_H

#include <stddef.h>
#include <stdint.h>

#include "model/files/safetensors.h"

/* tests/fixtures/encoder/NAME; the next call overwrites it. */
const char *rig_folder(const char *name);
/* NAME/expected.safetensors, for m2se_safetensors_close. */
struct m2se_safetensors *rig_expected(const char *name);
/* A tensor's floats or 32-bit integers; free(). *count: its elements (NULL: not wanted). */
float *rig_floats(const struct m2se_safetensors *file, const char *tensor, size_t *count);
uint32_t *rig_numbers(const struct m2se_safetensors *file, const char *tensor, size_t *count);

void rig_normalise(float *rows, size_t count, size_t n);
/* |got - want| <= 1e-5 for each of n. */
void rig_close(const float *got, const float *want, size_t n, const char *what);

/* A copy of the fixture NAME (config.json and weights) in a new temporary folder, with one thing done to it
 * before it is written. The path is static; rig_remove takes the folder away. */
struct rig_damage {
  const char *leave_out; /* a tensor */
  const char *rename;    /* a tensor gets ".other" behind its name */
  const char *reshape;   /* a tensor becomes one-dimensional */
  const char *retype;    /* a tensor's bytes are read as I32 */
  const char *poison;    /* a tensor's first number becomes NaN */
  size_t cut_bytes;      /* off the end of the file */
  const char *config;    /* text of config.json; NULL: the fixture's */
};
const char *rig_damaged(const char *name, struct rig_damage damage);
void rig_remove(void);

#endif
