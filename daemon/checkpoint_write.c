/* A new generation: into a temporary directory, each file synced, the manifest last; then renamed. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/checkpoint_files.h"
#include "daemon/fence.h"

/* Where generation `generation` is while it comes or goes. Two hosts may have processes of the same number.
 */
static int temporary_path(char *path, const char *dir, uint64_t generation, uint64_t fence,
                          struct m2se_error *error) {
  char name[32];
  m2sed_generation_name(name, sizeof name, generation);
  return m2sed_path_format(path, error, "%s/%s.tmp.%ld.%llu", dir, name, (long)getpid(),
                           (unsigned long long)fence);
}

static int write_file(int which, const char *path, const struct m2sed_checkpoint_state *state,
                      const struct m2sed_checkpoint_info *info, struct m2se_error *error) {
  switch (which) {
  case M2SED_FILE_MODEL:
    return m2se_snapshot_write_model(state->weights, path, error);
  case M2SED_FILE_OPTIMIZER:
    return m2se_snapshot_write_optimizer(state->weights, path, error);
  default:
    assert(which == M2SED_FILE_STATE);
    return m2sed_state_write(path, state, info, error);
  }
}

static int write_manifest(const char *directory, const struct m2sed_checkpoint_state *state,
                          const struct m2sed_checkpoint_info *info, uint64_t generation,
                          const struct m2sed_file_sum *sums, uint64_t *bytes, struct m2se_error *error) {
  char path[M2SED_PATH_BYTES], *text = NULL;
  size_t length = 0;
  int code = m2sed_path_format(path, error, "%s/%s", directory, M2SED_MANIFEST);
  if (code == 0) {
    code = m2sed_manifest_format(state, info, generation, sums, &text, &length, error);
  }
  if (code == 0) {
    code = m2sed_file_write(path, text, length, error);
    *bytes += length;
    free(text);
  }
  return code;
}

static int write_files(const char *directory, const struct m2sed_checkpoint_state *state,
                       const struct m2sed_checkpoint_info *info, uint64_t generation, uint64_t *bytes,
                       struct m2se_error *error) {
  struct m2sed_file_sum sums[M2SED_CHECKPOINT_FILES];
  char path[M2SED_PATH_BYTES];
  int code = 0;
  *bytes = 0;
  for (int i = 0; i < M2SED_CHECKPOINT_FILES && code == 0; i++) {
    code = m2sed_path_format(path, error, "%s/%s", directory, m2sed_checkpoint_file_names[i]);
    if (code == 0) {
      code = write_file(i, path, state, info, error);
    }
    if (code == 0) {
      code = m2sed_file_sum(path, &sums[i], error);
      *bytes += sums[i].bytes;
    }
  }
  if (code == 0) {
    code = write_manifest(directory, state, info, generation, sums, bytes, error);
  }
  return code == 0 ? m2sed_directory_sync(directory, error) : code;
}

static int next_generation(const char *dir, uint64_t *generation, struct m2se_error *error) {
  uint64_t *numbers;
  uint32_t count;
  int code = m2sed_checkpoint_list(dir, &numbers, &count, error);
  if (code == 0) {
    *generation = count > 0 ? numbers[count - 1] + 1 : 1;
    free(numbers);
  }
  return code;
}

/* Are we still the one whose generations count? */
static int check_fence(const char *dir, const struct m2sed_checkpoint_info *info, struct m2se_error *error) {
  struct m2sed_fence newest;
  int code = info->fence > 0 ? m2sed_fence_newest(dir, &newest, error) : 0;
  if (code == 0 && info->fence > 0 && newest.number > info->fence) {
    code =
        m2se_error_set(error, M2SE_EDROPPED, "%s: another daemon writes here, with fence %llu; ours is %llu",
                       dir, (unsigned long long)newest.number, (unsigned long long)info->fence);
  }
  return code;
}

/* Moved away first, so that there is never half a generation under its name. What cannot be removed stays
 * until the next time: the new generation is safe, and that is what counts. */
static void remove_older(const char *dir, const struct m2sed_checkpoint_info *info, uint64_t newest) {
  char path[M2SED_PATH_BYTES], away[M2SED_PATH_BYTES];
  uint64_t *numbers;
  uint32_t count;
  if (m2sed_checkpoint_list(dir, &numbers, &count, NULL) < 0) {
    return;
  }
  uint64_t first = info->first > 0 ? info->first : newest;
  uint32_t kept = 0;
  for (uint32_t i = count; i-- > 0;) {
    bool damaged = info->loaded > 0 && numbers[i] > info->loaded && numbers[i] < first;
    if (kept < info->keep) {
      kept += !damaged;
    } else if (m2sed_generation_path(path, dir, numbers[i], NULL, NULL) == 0 &&
               temporary_path(away, dir, numbers[i], info->fence, NULL) == 0 && rename(path, away) == 0) {
      m2sed_directory_remove(away, NULL);
    }
  }
  free(numbers);
}

static int check_state(const struct m2sed_checkpoint_state *state, const struct m2sed_checkpoint_info *info,
                       struct m2se_error *error) {
  size_t lineage = strlen(info->lineage);
  assert(state->weights != NULL && info->keep >= 1 && info->topic[0] != '\0');
  assert(lineage >= 1 && lineage < sizeof state->lineage);
  assert(m2se_snapshot_step(state->weights) == state->step);
  if (!m2se_snapshot_finite(state->weights)) {
    return m2se_error_set(error, M2SE_ENUMERIC, "the weights of step %llu are not finite",
                          (unsigned long long)state->step);
  }
  return 0;
}

int m2sed_checkpoint_write(const char *dir, const struct m2sed_checkpoint_state *state,
                           const struct m2sed_checkpoint_info *info, uint64_t *generation, uint64_t *bytes,
                           struct m2se_error *error) {
  char final[M2SED_PATH_BYTES], temporary[M2SED_PATH_BYTES];
  uint64_t number = 0, written = 0;
  int code = check_state(state, info, error);
  if (code == 0) {
    code = next_generation(dir, &number, error);
  }
  if (code == 0) {
    code = m2sed_generation_path(final, dir, number, NULL, error);
  }
  if (code == 0) {
    code = temporary_path(temporary, dir, number, info->fence, error);
  }
  if (code < 0) {
    return code;
  }
  m2sed_directory_remove(temporary, NULL); /* of an attempt that failed and could not be removed */
  if (mkdir(temporary, 0755) != 0) {
    return m2se_error_set(error, M2SE_EIO, "%s: mkdir: %s", temporary, strerror(errno));
  }
  code = write_files(temporary, state, info, number, &written, error);
  if (code == 0) {
    code = check_fence(dir, info, error);
  }
  if (code == 0 && rename(temporary, final) != 0) {
    code = m2se_error_set(error, M2SE_EIO, "%s: rename: %s", final, strerror(errno));
  }
  if (code < 0) {
    m2sed_directory_remove(temporary, NULL);
    return code;
  }
  code = m2sed_directory_sync(dir, error);
  if (code == 0) { /* once more: whoever replaced us meanwhile may have gone on from an older one */
    code = check_fence(dir, info, error);
  }
  if (code < 0) { /* it is there and whole, but perhaps not after a power cut: the older ones must stay */
    return code;
  }
  remove_older(dir, info, number);
  if (generation != NULL) {
    *generation = number;
  }
  if (bytes != NULL) {
    *bytes = written;
  }
  return 0;
}
