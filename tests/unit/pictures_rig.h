/* What the tests of pictures share. M2SED_HELPER, M2SE_PICTURES and M2SE_FIXTURES come from CMake. */
#ifndef M2SED_TESTS_PICTURES_RIG_H
#define M2SED_TESTS_PICTURES_RIG_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/pictures/pictures.h"

/* Sanitizers need more memory and system calls than the cage has. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define M2SED_SANITIZED
#endif

struct m2sed_pictures *pictures_rig_open(const struct m2sed_pictures_options *options);
uint8_t *pictures_rig_read(const char *path, size_t *size); /* a zero behind it; free */
void pictures_rig_write(const char *path, const void *bytes, size_t size);
void pictures_rig_remove(const char *root); /* a folder and all in it */
pid_t pictures_rig_child(void);             /* the only child of this process: the helper */

/* The picture is refused for this reason, which the text names and the counter counts. */
void pictures_rig_expect_file(struct m2sed_pictures *pictures, const char *root, const char *path,
                              enum m2sed_picture_reason reason);

#endif
