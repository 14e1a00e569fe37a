/* The weights in a model's Hugging Face folder: `model.safetensors`, or several files that
 * `model.safetensors.index.json` lists. Which tensors were read is noted, so that at the end one that nobody
 * asked for can be told: a folder of another architecture is refused, not half read.
 *
 * Errors name the file, the tensor and the reason: M2SE_EMISSING (no such file or tensor), M2SE_ESHAPE,
 * M2SE_ETYPE (not F32, F16, BF16 or F64), M2SE_ENUMERIC (a number that is not finite), M2SE_EFORMAT (a
 * damaged file; a tensor too many), M2SE_ELIMIT, M2SE_EIO, M2SE_ENOMEM.
 *
 * Thread: one at a time; all of it blocks on the disk.
 */
#ifndef M2SE_FOLDER_H
#define M2SE_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

struct m2se_folder;

/* *folder is the caller's, for m2se_folder_close; NULL on failure. */
int m2se_folder_open(struct m2se_folder **folder, const char *path, struct m2se_error *error);
void m2se_folder_close(struct m2se_folder *folder); /* NULL: nothing */

/* The first of prefixes[count] with which `name` is there is put before every name from now on.
 * M2SE_EMISSING: with none. */
int m2se_folder_choose_prefix(struct m2se_folder *folder, const char *const *prefixes, size_t count,
                              const char *name, struct m2se_error *error);

/* Copies a tensor of exactly this shape to out, as float32. A name that ends in LayerNorm.weight or .bias may
 * be LayerNorm.gamma or .beta in the file. */
int m2se_folder_read(struct m2se_folder *folder, const char *name, uint32_t rank, const uint64_t *shape,
                     float *out, struct m2se_error *error);
/* [n] and [rows, columns]; the name is made of two parts: with a table of parts, every name is written once.
 */
int m2se_folder_read_vector(struct m2se_folder *folder, const char *name, const char *part, size_t n,
                            float *out, struct m2se_error *error);
int m2se_folder_read_matrix(struct m2se_folder *folder, const char *name, const char *part, size_t rows,
                            size_t columns, float *out, struct m2se_error *error);

/* Every tensor has been read, or its name (without the prefix, if it has that) begins with one of
 * ignored[count] or ends in "position_ids". M2SE_EFORMAT names the first other one. */
int m2se_folder_finish(const struct m2se_folder *folder, const char *const *ignored, size_t count,
                       struct m2se_error *error);

enum { M2SE_FOLDER_DIGEST = 33 };
/* What tells one model from another: 128 bits of XXH3 over all tensors and over the configuration, tokenizer
 * and pooling files that are there, as text in hexadecimal. Reads the whole folder. Errors as open. */
int m2se_folder_digest(const char *path, char digest[M2SE_FOLDER_DIGEST], struct m2se_error *error);

struct m2se_json;
/* A member of a configuration; NULL if it is not there or null, which mean the same. */
const struct m2se_json *m2se_folder_member(const struct m2se_json *object, const char *key);
/* A whole number of a configuration, min..max; `standard` if it is not there. M2SE_ETYPE, M2SE_ERANGE. */
int m2se_folder_setting(const struct m2se_json *object, const char *key, uint32_t standard, uint32_t min,
                        uint32_t max, uint32_t *number, struct m2se_error *error);

/* n floats, aligned for vectors, for free(); NULL: no memory. */
float *m2se_floats_new(size_t n);

#endif
