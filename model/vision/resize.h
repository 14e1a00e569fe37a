/* From a picture's pixels to the numbers that CLIP takes: shortest edge to a size, centre crop,
 * normalisation, as the folder's preprocessor_config.json says.
 *
 * DESIGN. The same bytes as Pillow's bicubic (a = -0.5, antialiased, weights of 22 fractional bits, rounded
 * to 8 bits after the horizontal and after the vertical pass), but of the cropped square only. Transparency
 * is laid on white first.
 *
 * A resizer holds all memory that a call needs; one thread at a time.
 */
#ifndef M2SE_RESIZE_H
#define M2SE_RESIZE_H

#include <stdint.h>

#include "model/error.h"

struct m2se_resizer;

/* For pictures of at most pixels_max pixels. image_size: what the model takes (clip.h). Without the file
 * CLIP's own values stand. Errors name file and field: M2SE_ERANGE (another crop than the model takes,
 * another filter, a step left out), M2SE_ETYPE, M2SE_EFORMAT, M2SE_EIO, M2SE_ENOMEM. *resizer is for
 * m2se_resizer_free; NULL on failure. */
int m2se_resizer_new(struct m2se_resizer **resizer, const char *folder, uint32_t image_size,
                     uint32_t pixels_max, struct m2se_error *error);
void m2se_resizer_free(struct m2se_resizer *resizer); /* NULL: nothing */

/* pixels [height, width, channels], 8 bits, channels 3 (RGB) or 4 (RGBA, not premultiplied), width x height
 * at most pixels_max, both at least 1. square [size, size, 3]: the resized and cropped bytes. */
void m2se_resize(struct m2se_resizer *resizer, const uint8_t *pixels, uint32_t width, uint32_t height,
                 uint32_t channels, uint8_t *square);
/* The same, and normalised: numbers [3, size, size]. */
void m2se_resize_normalized(struct m2se_resizer *resizer, const uint8_t *pixels, uint32_t width,
                            uint32_t height, uint32_t channels, float *numbers);

#endif
