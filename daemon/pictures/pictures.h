/* Pictures from strangers, as pixels: decoded in a helper process (m2sed_pictures), never in this one.
 *
 * DESIGN. Image libraries are where attackers look first, so they run in a process that can do nothing but
 * compute: no files, no network, 512 MiB, a second and a half of processor time a picture (sandbox.h). The
 * picture's bytes and its pixels travel through one piece of shared memory made and sealed here; fixed-size
 * messages on a socket say what lies in it (protocol.h). A helper that crashes, hangs or exceeds its limits
 * costs the picture it worked on and is replaced with the next one.
 *
 * Threads: one at a time; calls block for at most wall_ms_max.
 */
#ifndef M2SED_PICTURES_H
#define M2SED_PICTURES_H

#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

/* X(number, NAME, name, text): what became of a picture. Numbers are kept in stores: never renumbered. */
#define M2SED_PICTURE_REASONS(X)                                                                             \
  X(0, OK, "ok", "decoded")                                                                                  \
  X(1, TOO_LARGE, "too_large", "more bytes than allowed")                                                    \
  X(2, TOO_MANY_PIXELS, "too_many_pixels", "more pixels than allowed")                                       \
  X(3, TOO_COMPLEX, "too_complex", "more scans, chunks or metadata than any honest picture has")             \
  X(4, NOT_A_PICTURE, "not_a_picture", "neither JPEG nor PNG nor WebP")                                      \
  X(5, UNSUPPORTED, "unsupported", "a kind of JPEG, PNG or WebP that is not decoded")                        \
  X(6, DAMAGED, "damaged", "truncated or inconsistent")                                                      \
  X(7, TOO_MUCH_MEMORY, "too_much_memory", "decoding needs more memory than the helper may have")            \
  X(8, TIMEOUT, "timeout", "decoding took too long")                                                         \
  X(9, CRASHED, "crashed", "the helper died of it")                                                          \
  X(10, NOT_FOUND, "not_found", "no file of that name")                                                      \
  X(11, OUTSIDE, "outside", "the path leaves the root or leads through a symbolic link")                     \
  X(12, NOT_A_FILE, "not_a_file", "a folder, pipe or device")                                                \
  X(13, UNREADABLE, "unreadable", "the system refused to open or read the file")                             \
  X(14, NO_ROOT, "no_root", "a path, but no root for paths is configured")

enum m2sed_picture_reason {
#define M2SED_PICTURE_ENUM(number, NAME, name, text) M2SED_PICTURE_##NAME = (number),
  M2SED_PICTURE_REASONS(M2SED_PICTURE_ENUM)
#undef M2SED_PICTURE_ENUM
      M2SED_PICTURE_REASON_COUNT
};

/* Static; reason is one of the list. */
const char *m2sed_picture_reason_name(int reason);
const char *m2sed_picture_reason_text(int reason);

struct m2sed_picture {
  uint32_t width, height; /* as people see it: the orientation of its EXIF data has been applied */
  uint32_t channels;      /* 3: RGB; 4: RGBA, not premultiplied */
  const uint8_t *pixels;  /* [height, width, channels], 8 bits; valid until the next call */
};

enum {
  M2SED_PICTURES_BYTES_MAX = 16 << 20,
  M2SED_PICTURES_PIXELS_MAX = 40000000, /* whatever the format, decoding it fits in the helper's memory */
};

struct m2sed_pictures_options {
  const char *helper;   /* path of m2sed_pictures; NULL: beside this program */
  uint32_t bytes_max;   /* 0: M2SED_PICTURES_BYTES_MAX, which is the most */
  uint32_t pixels_max;  /* 0: M2SED_PICTURES_PIXELS_MAX, which is the most */
  uint32_t cpu_ms_max;  /* processor time a picture may take; 0: 1500 */
  uint32_t wall_ms_max; /* and time on the clock, for a busy machine; 0: 10000 */
};

struct m2sed_pictures_counters {
  uint64_t by_reason[M2SED_PICTURE_REASON_COUNT];
  uint64_t helpers_started;
};

struct m2sed_pictures;

/* options: NULL for all defaults. No helper is started before the first picture. M2SE_EINVAL, M2SE_ENOMEM,
 * M2SE_EIO, M2SE_EMISSING (no helper of that name). */
int m2sed_pictures_open(struct m2sed_pictures **pictures, const struct m2sed_pictures_options *options,
                        struct m2se_error *error);
void m2sed_pictures_close(struct m2sed_pictures *pictures); /* ends the helper; NULL is allowed */

/* One picture. 0: *picture is filled in. A reason (positive): the picture's fault, which error->text explains
 * and *picture is empty. Negative (an error of model/error.h): ours, the helper cannot be started; to be
 * tried again later. */
int m2sed_pictures_decode(struct m2sed_pictures *pictures, const void *bytes, size_t size,
                          struct m2sed_picture *picture, struct m2se_error *error);

/* The same for a file. root: a path from a stranger, which must lead to a regular file beneath that folder
 * without any symbolic link ("" : no root is configured); NULL: a path from the operator, taken as it is. */
int m2sed_pictures_decode_file(struct m2sed_pictures *pictures, const char *root, const char *path,
                               struct m2sed_picture *picture, struct m2se_error *error);

/* Reads such a file without decoding it, so that its content can be recognised first. 0: *bytes (free) and
 * *size; a reason, or a negative error. Any thread. */
int m2sed_picture_file_read(const char *root, const char *path, uint32_t bytes_max, uint8_t **bytes,
                            size_t *size, struct m2se_error *error);

/* What such a file looks like without opening its content: another size or time of change is another picture.
 * 0, a reason, or a negative error. Any thread. */
int m2sed_picture_file_look(const char *root, const char *path, uint64_t *size, int64_t *changed_ns,
                            struct m2se_error *error);

struct m2sed_pictures_counters m2sed_pictures_count(const struct m2sed_pictures *pictures);

#endif
