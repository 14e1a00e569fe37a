/* An older generation becomes the newest. The copy comes first, then the others go: whenever this is cut
 * short, the newest is either what it was or the copy. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/checkpoint_files.h"
#include "daemon/fence.h"

/* Files never change once they are written, so that both can have the same. */
static int link_files(const char *dir, uint64_t generation, const char *to, struct m2se_error *error) {
  char path[M2SED_PATH_BYTES], twin[M2SED_PATH_BYTES];
  int code = 0;
  for (int i = 0; i < M2SED_CHECKPOINT_FILES && code == 0; i++) {
    const char *name = m2sed_checkpoint_file_names[i];
    code = m2sed_generation_path(path, dir, generation, name, error);
    if (code == 0) {
      code = m2sed_path_format(twin, error, "%s/%s", to, name);
    }
    if (code == 0 && link(path, twin) != 0) {
      code = m2se_error_set(error, M2SE_EIO, "%s: link: %s", twin, strerror(errno));
    }
  }
  return code;
}

static int write_manifest(const char *dir, uint64_t generation, uint64_t copy, const char *to,
                          struct m2se_error *error) {
  char path[M2SED_PATH_BYTES], *text, *renumbered = NULL;
  size_t length, new_length;
  int code = m2sed_checkpoint_manifest(dir, generation, &text, &length, error);
  if (code < 0) {
    return code;
  }
  code = m2sed_manifest_renumber(text, length, copy, &renumbered, &new_length, error);
  if (code == 0) {
    code = m2sed_path_format(path, error, "%s/%s", to, M2SED_MANIFEST);
  }
  if (code == 0) {
    code = m2sed_file_write(path, renumbered, new_length, error);
  }
  free(renumbered);
  free(text);
  return code;
}

static int make_copy(const char *dir, uint64_t generation, uint64_t copy, struct m2se_error *error) {
  char final[M2SED_PATH_BYTES], temporary[M2SED_PATH_BYTES];
  int code = m2sed_generation_path(final, dir, copy, NULL, error);
  if (code == 0) {
    code = m2sed_path_format(temporary, error, "%s.tmp.%ld", final, (long)getpid());
  }
  if (code < 0) {
    return code;
  }
  if (mkdir(temporary, 0755) != 0) {
    return m2se_error_set(error, M2SE_EIO, "%s: mkdir: %s", temporary, strerror(errno));
  }
  code = link_files(dir, generation, temporary, error);
  if (code == 0) {
    code = write_manifest(dir, generation, copy, temporary, error);
  }
  if (code == 0) {
    code = m2sed_directory_sync(temporary, error);
  }
  if (code == 0 && rename(temporary, final) != 0) {
    code = m2se_error_set(error, M2SE_EIO, "%s: rename: %s", final, strerror(errno));
  }
  if (code < 0) {
    m2sed_directory_remove(temporary, NULL);
  }
  return code < 0 ? code : m2sed_directory_sync(dir, error);
}

/* The copy counts, though it was written with the fence of its time. */
static int admit(const char *dir, uint64_t copy, struct m2se_error *error) {
  struct m2sed_fence fence;
  int code = m2sed_fence_newest(dir, &fence, error);
  if (code == 0 && fence.number > 0) {
    fence.number++;
    fence.from = copy;
    code = m2sed_fence_begin(dir, &fence, error);
  }
  return code;
}

int m2sed_checkpoint_roll_back(const char *dir, uint64_t generation, uint64_t *copy,
                               struct m2se_error *error) {
  uint64_t *numbers;
  uint32_t count;
  bool there = false;
  int code = m2sed_checkpoint_list(dir, &numbers, &count, error);
  if (code < 0) {
    return code;
  }
  for (uint32_t i = 0; i < count; i++) {
    there |= numbers[i] == generation;
  }
  if (!there) {
    code = m2se_error_set(error, M2SE_EMISSING, "%s: there is no generation %" PRIu64, dir, generation);
  } else if (numbers[count - 1] == generation) {
    code = m2se_error_set(error, M2SE_EINVAL, "%s: generation %" PRIu64 " is the newest", dir, generation);
  } else {
    code = m2sed_checkpoint_verify(dir, generation, error);
  }
  *copy = code == 0 ? numbers[count - 1] + 1 : 0;
  if (code == 0) {
    code = make_copy(dir, generation, *copy, error);
  }
  if (code == 0) {
    code = admit(dir, *copy, error);
  }
  for (uint32_t i = 0; i < count && code == 0; i++) {
    code = numbers[i] > generation ? m2sed_generation_put_away(dir, numbers[i], "undone-", error) : 0;
  }
  free(numbers);
  return code < 0 ? code : m2sed_directory_sync(dir, error);
}
