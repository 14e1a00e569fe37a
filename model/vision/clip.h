/* CLIP (ViT-B/32, B/16, L/14 and others of that make): pictures and texts as vectors of one space.
 *
 * DESIGN. A vision tower cuts a picture into patches, a text tower reads ids; each ends in one projected
 * vector. The last layer is computed for the row only that the vector comes from: [class], or the text's end.
 *
 * A loaded model never changes: any thread may use it, with a scratch of its own.
 */
#ifndef M2SE_CLIP_H
#define M2SE_CLIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

enum m2se_clip_towers { M2SE_CLIP_TEXT = 1, M2SE_CLIP_VISION = 2, M2SE_CLIP_BOTH = 3 };

struct m2se_clip;
struct m2se_clip_scratch;

/* Reads `config.json` and the weights of the towers that are wanted. *clip is for m2se_clip_free; NULL on
 * failure. Errors name file, field or tensor, and rule: those of encoder/folder.h, and M2SE_ETYPE,
 * M2SE_ERANGE for a configuration that this code does not compute. */
int m2se_clip_load(struct m2se_clip **clip, const char *folder, enum m2se_clip_towers towers,
                   struct m2se_error *error);
void m2se_clip_free(struct m2se_clip *clip); /* NULL: nothing */
/* Does the folder's config.json say that it is a CLIP? A file that cannot be read: no. */
bool m2se_clip_is_folder(const char *folder);

uint32_t m2se_clip_dim(const struct m2se_clip *clip);        /* numbers in a vector */
uint32_t m2se_clip_image_size(const struct m2se_clip *clip); /* a picture is [3, size, size] */
uint32_t m2se_clip_len_max(const struct m2se_clip *clip);    /* ids a text may have */
uint32_t m2se_clip_ids(const struct m2se_clip *clip);        /* every id is less than this */
size_t m2se_clip_bytes(const struct m2se_clip *clip);        /* of its weights */

/* All memory for one tower and `items` texts (of len_max ids) or pictures at a time. NULL: no memory. */
struct m2se_clip_scratch *m2se_clip_scratch_new(const struct m2se_clip *clip, enum m2se_clip_towers tower,
                                                uint32_t items);
void m2se_clip_scratch_free(struct m2se_clip_scratch *scratch); /* NULL: nothing */

/* vectors [count, dim]; normalize: to length 1. 0, or M2SE_ENUMERIC: a vector is not finite.
 * Texts: ids[ptr[i] .. ptr[i+1]), 1..len_max each, their end included; the first end counts.
 * Pictures: pixels [count, 3, size, size], as resize.h makes them. */
int m2se_clip_encode_texts(const struct m2se_clip *clip, struct m2se_clip_scratch *scratch,
                           const uint32_t *ids, const uint32_t *ptr, uint32_t count, bool normalize,
                           float *vectors, struct m2se_error *error);
int m2se_clip_encode_images(const struct m2se_clip *clip, struct m2se_clip_scratch *scratch,
                            const float *pixels, uint32_t count, bool normalize, float *vectors,
                            struct m2se_error *error);

/* Floating-point operations of the products for `count` pictures at a time. */
double m2se_clip_image_flops(const struct m2se_clip *clip, uint32_t count);

#endif
