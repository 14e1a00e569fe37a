#include "daemon/fence.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/checkpoint_files.h"

enum { TEXT_BYTES_MAX = 64 };

#define NAME "fence-%010" PRIu64
#define TEXT "goes on from generation %" PRIu64 "\n"

static int fence_path(char *path, const char *dir, uint64_t number, struct m2se_error *error) {
  return m2sed_path_format(path, error, "%s/" NAME, dir, number);
}

/* Both parsers take exactly what is written: the number found, written again, must give the same bytes. */

/* 0: another file. */
static uint64_t parse_name(const char *name) {
  char again[TEXT_BYTES_MAX];
  uint64_t number = strncmp(name, "fence-", 6) == 0 ? strtoull(name + 6, NULL, 10) : 0;
  snprintf(again, sizeof again, NAME, number);
  return strcmp(name, again) == 0 ? number : 0;
}

static bool parse_text(const char *text, uint64_t *from) {
  char again[TEXT_BYTES_MAX];
  const char *number = strpbrk(text, "0123456789");
  *from = number ? strtoull(number, NULL, 10) : 0;
  snprintf(again, sizeof again, TEXT, *from);
  return strcmp(text, again) == 0;
}

/* The highest number; with `below` not 0, removes all that are lower. */
static int walk(const char *dir, uint64_t below, uint64_t *highest, struct m2se_error *error) {
  DIR *directory = opendir(dir);
  *highest = 0;
  if (!directory)
    return errno == ENOENT ? 0 : m2se_error_set(error, M2SE_EIO, "%s: opendir: %s", dir, strerror(errno));
  for (struct dirent *entry; (entry = readdir(directory));) {
    uint64_t number = parse_name(entry->d_name);
    *highest = number > *highest ? number : *highest;
    if (number && number < below)
      unlinkat(dirfd(directory), entry->d_name, 0);
  }
  closedir(directory);
  return 0;
}

int m2sed_fence_newest(const char *dir, struct m2sed_fence *fence, struct m2se_error *error) {
  char path[M2SED_PATH_BYTES], *text;
  size_t length;
  *fence = (struct m2sed_fence){0};
  int code = walk(dir, 0, &fence->number, error);
  if (code || !fence->number)
    return code;
  code = fence_path(path, dir, fence->number, error);
  if (!code)
    code = m2sed_file_read(path, TEXT_BYTES_MAX, &text, &length, error);
  if (code)
    return code;
  if (!parse_text(text, &fence->from))
    code = m2se_error_set(error, M2SE_EFORMAT, "%s: does not say from which generation", path);
  free(text);
  return code;
}

int m2sed_fence_begin(const char *dir, const struct m2sed_fence *fence, struct m2se_error *error) {
  char path[M2SED_PATH_BYTES], temporary[M2SED_PATH_BYTES], text[TEXT_BYTES_MAX];
  uint64_t highest;
  int code = walk(dir, 0, &highest, error);
  if (!code && highest >= fence->number)
    code = m2se_error_set(error, M2SE_EDROPPED, "%s: fence %" PRIu64 " is there, ours is %" PRIu64, dir,
                          highest, fence->number);
  if (!code)
    code = fence_path(path, dir, fence->number, error);
  if (!code)
    code = m2sed_path_format(temporary, error, "%s.tmp.%ld", path, (long)getpid());
  if (code)
    return code;
  int length = snprintf(text, sizeof text, TEXT, fence->from);
  unlink(temporary); /* of a process of the same number that was killed just here */
  code = m2sed_file_write(temporary, text, (size_t)length, error);
  if (!code && link(temporary, path) != 0) /* not rename: it would replace another's */
    code = m2se_error_set(error, errno == EEXIST ? M2SE_EDROPPED : M2SE_EIO, "%s: link: %s", path,
                          strerror(errno));
  unlink(temporary);
  if (!code)
    code = m2sed_directory_sync(dir, error);
  return code ? code : walk(dir, fence->number, &highest, error);
}

bool m2sed_fence_admits(const struct m2sed_fence *fence, uint64_t generation, uint64_t written) {
  return generation <= fence->from || written >= fence->number;
}
