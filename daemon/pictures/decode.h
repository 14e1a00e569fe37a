/* One picture decoded, by Debian's libjpeg-turbo, libpng or libwebp. Runs in the helper process: nothing here
 * is trusted with a stranger's bytes anywhere else (but by the fuzzer).
 *
 * What comes out is what Pillow gives: no gamma, no colour profiles; 16 bits keep their upper 8 (gray ones
 * too, which Pillow cuts off instead); CMYK by Pillow's formula; a JPEG with warnings is taken, a truncated
 * one is not.
 */
#ifndef M2SED_PICTURES_DECODE_H
#define M2SED_PICTURES_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/pictures/protocol.h"

enum {
  M2SED_DECODE_SIDE_MAX = 65535,
  M2SED_DECODE_SCANS_MAX = 100,        /* of a progressive JPEG; encoders make about 10 */
  M2SED_DECODE_CHUNKS_MAX = 65536,     /* segments, in a JPEG */
  M2SED_DECODE_METADATA_MAX = 4 << 20, /* bytes of everything that is not the picture, profile unpacked */
};

/* The work on one picture: what came, where pixels go, what came of it. */
struct m2sed_decode {
  const uint8_t *bytes; /* [size] */
  size_t size;
  uint32_t pixels_max;
  uint8_t *pixels;                  /* [pixels_max * 4] */
  uint32_t orientation;             /* EXIF: 1 to 8 */
  uint32_t width, height, channels; /* as stored; the reply has them oriented */
  enum m2sed_picture_reason reason;
  char detail[M2SED_PICTURES_DETAIL_MAX];
};

/* Decodes into `pixels` and fills in the reply (all but its number). Allocates, and frees all of it. */
void m2sed_decode(const uint8_t *bytes, size_t size, uint32_t pixels_max, uint8_t *pixels,
                  struct m2sed_pictures_reply *reply);

/* For the three below. */

/* Notes why the picture is refused; the first reason stays. */
void m2sed_decode_refuse(struct m2sed_decode *decode, enum m2sed_picture_reason reason, const char *format,
                         ...) __attribute__((format(printf, 3, 4)));
/* Notes the size, or refuses it and returns false. channels: 3 or 4. */
bool m2sed_decode_size(struct m2sed_decode *decode, uint64_t width, uint64_t height, uint32_t channels);
/* Puts row y [width, channels] of the stored picture where its orientation wants it. */
void m2sed_decode_row(struct m2sed_decode *decode, uint32_t y, const uint8_t *row);
/* Where a whole stored picture [height, width, channels] can be decoded to: `pixels` itself when its
 * orientation is 1, else memory of its own (NULL: refused). _place puts it where it belongs and frees it. */
uint8_t *m2sed_decode_whole(struct m2sed_decode *decode);
void m2sed_decode_whole_place(struct m2sed_decode *decode, uint8_t *whole);
void m2sed_decode_whole_free(struct m2sed_decode *decode, uint8_t *whole);

/* The orientation that EXIF data (a TIFF header and what follows) tells, 1 if it tells none. */
uint32_t m2sed_decode_orientation(const uint8_t *exif, size_t size);

/* Each fills in the fields from `orientation` on; bytes begin with the format's signature. */
void m2sed_decode_jpeg(struct m2sed_decode *decode);
void m2sed_decode_png(struct m2sed_decode *decode);
void m2sed_decode_webp(struct m2sed_decode *decode);

#endif
