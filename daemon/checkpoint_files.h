/* Inside of the checkpoints: names, files, MANIFEST.json. For checkpoint*.c alone. */
#ifndef M2SED_CHECKPOINT_FILES_H
#define M2SED_CHECKPOINT_FILES_H

#include "daemon/checkpoint.h"

enum { M2SED_CHECKPOINT_FILES = 3, M2SED_PATH_BYTES = 4096 };
#define M2SED_MANIFEST "MANIFEST.json"
#define M2SED_MANIFEST_BYTES_MAX ((size_t)8 << 20) /* 16384 partitions take 1 MiB */

/* The files that a manifest vouches for. */
extern const char *const m2sed_checkpoint_file_names[M2SED_CHECKPOINT_FILES];
enum { M2SED_FILE_MODEL, M2SED_FILE_OPTIMIZER, M2SED_FILE_STATE };

struct m2sed_file_sum {
  uint64_t bytes;
  char xxh3_128[33]; /* hexadecimal */
};

/* snprintf of a path [M2SED_PATH_BYTES]; M2SE_ELIMIT if it does not fit. */
int m2sed_path_format(char *path, struct m2se_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* "gen-NNNNNNNNNN". */
void m2sed_generation_name(char *name, size_t size, uint64_t generation);
/* The directory of a generation, or a file in it (NULL: the directory). */
int m2sed_generation_path(char *path, const char *dir, uint64_t generation, const char *file,
                          struct m2se_error *error);
/* Renames it to PREFIXgen-NNNNNNNNNN, with a number behind it if that is there already: nobody loads it, and
 * an operator may still look at it. */
int m2sed_generation_put_away(const char *dir, uint64_t generation, const char *prefix,
                              struct m2se_error *error);

/* Size and checksum of a file as it is on the disk now. */
int m2sed_file_sum(const char *path, struct m2sed_file_sum *sum, struct m2se_error *error);
void m2sed_memory_sum(const void *data, size_t bytes, struct m2sed_file_sum *sum);
/* The whole file, NUL-terminated, freed with free(). M2SE_ELIMIT above bytes_max. */
int m2sed_file_read(const char *path, size_t bytes_max, char **text, size_t *length,
                    struct m2se_error *error);
/* A new file, written and fsynced. */
int m2sed_file_write(const char *path, const char *text, size_t length, struct m2se_error *error);
int m2sed_directory_sync(const char *path, struct m2se_error *error);
/* A directory of plain files, with them. */
int m2sed_directory_remove(const char *path, struct m2se_error *error);

/* ---- MANIFEST.json ---- */
/* Everything of a state that is not an array, who made it, and what the files must be. Its last line is a
 * checksum of all before it. *text is freed with free(). */
int m2sed_manifest_format(const struct m2sed_checkpoint_state *state,
                          const struct m2sed_checkpoint_info *info, uint64_t generation,
                          const struct m2sed_file_sum sums[M2SED_CHECKPOINT_FILES], char **text,
                          size_t *length, struct m2se_error *error);
/* The same with another number; freed with free(). */
int m2sed_manifest_renumber(const char *text, size_t length, uint64_t generation, char **renumbered,
                            size_t *new_length, struct m2se_error *error);
/* Fills generation, lineage, step, counters, positions (allocated), reservoir_seen, newest_event_ms and
 * config. After an error *state may be partly filled. */
int m2sed_manifest_parse(const char *text, size_t length, struct m2sed_checkpoint_state *state,
                         struct m2sed_file_sum sums[M2SED_CHECKPOINT_FILES], struct m2se_error *error);

/* ---- state.safetensors: the arrays of a state ---- */
int m2sed_state_write(const char *path, const struct m2sed_checkpoint_state *state,
                      const struct m2sed_checkpoint_info *info, struct m2se_error *error);
int m2sed_state_read(const char *path, struct m2sed_checkpoint_state *state, struct m2se_error *error);

#endif
