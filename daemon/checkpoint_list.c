/* Which generations there are, and which are left-overs of a writer that was interrupted. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/checkpoint_files.h"

/* "gen-" and at least ten digits, as m2sed_generation_path writes it: no number has two names. */
static bool parse_name(const char *name, uint64_t *generation) {
  char *end, again[32];
  if (strncmp(name, "gen-", 4) != 0 || strspn(name + 4, "0123456789") != strlen(name + 4)) {
    return false;
  }
  errno = 0;
  *generation = strtoull(name + 4, &end, 10);
  m2sed_generation_name(again, sizeof again, *generation);
  return errno == 0 && strcmp(again, name) == 0;
}

static int compare_numbers(const void *left, const void *right) {
  uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
  return (a > b) - (a < b);
}

/* *directory NULL and 0: it is not there. */
static int open_directory(const char *dir, DIR **directory, struct m2se_error *error) {
  *directory = opendir(dir);
  if (*directory == NULL && errno != ENOENT) {
    return m2se_error_set(error, M2SE_EIO, "%s: opendir: %s", dir, strerror(errno));
  }
  return 0;
}

int m2sed_checkpoint_list(const char *dir, uint64_t **generations, uint32_t *count,
                          struct m2se_error *error) {
  DIR *directory;
  struct dirent *entry;
  *count = 0;
  uint32_t capacity = 16;
  *generations = malloc(capacity * sizeof **generations);
  int code = *generations != NULL ? open_directory(dir, &directory, error)
                                  : m2se_error_set(error, M2SE_ENOMEM, "%s: listing", dir);
  if (code < 0) {
    free(*generations);
    *generations = NULL;
    return code;
  }
  while (directory != NULL && code == 0 && (entry = readdir(directory)) != NULL) {
    uint64_t generation;
    if (!parse_name(entry->d_name, &generation)) {
      continue;
    }
    if (*count == capacity) {
      capacity *= 2;
      uint64_t *larger = realloc(*generations, capacity * sizeof *larger);
      if (larger == NULL) {
        code = m2se_error_set(error, M2SE_ENOMEM, "%s: listing", dir);
        break;
      }
      *generations = larger;
    }
    (*generations)[(*count)++] = generation;
  }
  if (directory != NULL) {
    closedir(directory);
  }
  if (code < 0) {
    free(*generations);
    *generations = NULL;
    *count = 0;
    return code;
  }
  qsort(*generations, *count, sizeof **generations, compare_numbers);
  return 0;
}

int m2sed_checkpoint_clean(const char *dir, struct m2se_error *error) {
  char path[M2SED_PATH_BYTES];
  DIR *directory;
  struct dirent *entry;
  int code = open_directory(dir, &directory, error);
  if (code < 0 || directory == NULL) {
    return code;
  }
  while (code == 0 && (entry = readdir(directory)) != NULL) {
    if (strncmp(entry->d_name, "gen-", 4) == 0 && strstr(entry->d_name, ".tmp.") != NULL) {
      code = m2sed_path_format(path, error, "%s/%s", dir, entry->d_name);
      if (code == 0) {
        code = m2sed_directory_remove(path, error);
      }
    }
  }
  closedir(directory);
  return code;
}

int m2sed_generation_put_away(const char *dir, uint64_t generation, const char *prefix,
                              struct m2se_error *error) {
  char path[M2SED_PATH_BYTES], away[M2SED_PATH_BYTES], name[32];
  m2sed_generation_name(name, sizeof name, generation);
  int code = m2sed_generation_path(path, dir, generation, NULL, error);
  for (uint32_t time = 1; code == 0; time++) { /* the number may have been put away before */
    code = time == 1 ? m2sed_path_format(away, error, "%s/%s%s", dir, prefix, name)
                     : m2sed_path_format(away, error, "%s/%s%s.%u", dir, prefix, name, time);
    if (code == 0 && rename(path, away) == 0) {
      return 0;
    }
    if (code == 0 && errno != EEXIST && errno != ENOTEMPTY) {
      code = m2se_error_set(error, M2SE_EIO, "%s: rename: %s", away, strerror(errno));
    }
  }
  return code;
}

int m2sed_checkpoint_set_aside(const char *dir, struct m2se_error *error) {
  uint64_t *generations;
  uint32_t count;
  int code = m2sed_checkpoint_list(dir, &generations, &count, error);
  for (uint32_t i = 0; i < count && code == 0; i++) {
    code = m2sed_generation_put_away(dir, generations[i], "bad-", error);
  }
  free(generations);
  return code < 0 ? code : m2sed_directory_sync(dir, error);
}

int m2sed_checkpoint_manifest(const char *dir, uint64_t generation, char **text, size_t *length,
                              struct m2se_error *error) {
  char path[M2SED_PATH_BYTES];
  *text = NULL;
  int code = m2sed_generation_path(path, dir, generation, M2SED_MANIFEST, error);
  return code < 0 ? code : m2sed_file_read(path, M2SED_MANIFEST_BYTES_MAX, text, length, error);
}
