/* Small files of a model's folder, read whole. No state, any thread. */
#ifndef M2SE_FILE_H
#define M2SE_FILE_H

#include <stddef.h>

#include "model/error.h"
#include "model/files/json.h"

/* Reads FOLDER/NAME. On success *text is the caller's (free), with a NUL behind its *size bytes; on failure
 * NULL. Errors name the file: M2SE_EMISSING (no such file), M2SE_EIO, M2SE_ELIMIT (more than bytes_max),
 * M2SE_ENOMEM. */
int m2se_file_read(const char *folder, const char *name, size_t bytes_max, char **text, size_t *size,
                   struct m2se_error *error);

/* The same for a JSON file: errors also as m2se_json_parse, with the file's name in front. */
int m2se_file_read_json(const char *folder, const char *name, const struct m2se_json_limits *limits,
                        struct m2se_json **root, struct m2se_error *error);

#endif
