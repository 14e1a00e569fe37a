/* The newest generation that holds what its manifest promises. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/checkpoint_files.h"
#include "daemon/fence.h"

void m2sed_checkpoint_state_free(struct m2sed_checkpoint_state *state) {
  if (state == NULL) {
    return;
  }
  free(state->positions);
  free(state->waiting);
  free(state->parked);
  free(state->skipped);
  free(state->reservoir);
  free(state->items);
  free(state->loop_data);
  free(state);
}

static int read_manifest(const char *dir, uint64_t generation, struct m2sed_checkpoint_state *state,
                         struct m2sed_file_sum *sums, struct m2se_error *error) {
  char *text;
  size_t length;
  int code = m2sed_checkpoint_manifest(dir, generation, &text, &length, error);
  if (code < 0) {
    return code;
  }
  code = m2sed_manifest_parse(text, length, state, sums, error);
  free(text);
  if (code == 0 && state->generation != generation) {
    code = m2se_error_set(error, M2SE_EFORMAT, "%s is of generation %" PRIu64, M2SED_MANIFEST,
                          state->generation);
  }
  return code < 0 ? m2se_error_prefix(error, code, "%s", state->directory) : 0;
}

static int check_sum(const char *path, const struct m2sed_file_sum *promised, struct m2se_error *error) {
  struct m2sed_file_sum sum;
  int code = m2sed_file_sum(path, &sum, error);
  if (code == 0 && sum.bytes != promised->bytes) {
    code = m2se_error_set(error, M2SE_EFORMAT, "%s: %" PRIu64 " bytes, but the manifest says %" PRIu64, path,
                          sum.bytes, promised->bytes);
  } else if (code == 0 && strcmp(sum.xxh3_128, promised->xxh3_128) != 0) {
    code = m2se_error_set(error, M2SE_EFORMAT, "%s: its checksum is %s, but the manifest says %s", path,
                          sum.xxh3_128, promised->xxh3_128);
  }
  return code;
}

static bool file_belongs(const char *name) {
  for (int i = 0; i < M2SED_CHECKPOINT_FILES; i++) {
    if (strcmp(name, m2sed_checkpoint_file_names[i]) == 0) {
      return true;
    }
  }
  return strcmp(name, M2SED_MANIFEST) == 0 || name[0] == '.'; /* hidden: of file systems and editors */
}

/* A file that we do not know was part of a state that we do not understand. */
static int check_names(const char *directory, struct m2se_error *error) {
  DIR *opened = opendir(directory);
  struct dirent *entry;
  int code = 0;
  if (opened == NULL) {
    return m2se_error_set(error, M2SE_EIO, "%s: opendir: %s", directory, strerror(errno));
  }
  while (code == 0 && (entry = readdir(opened)) != NULL) {
    if (!file_belongs(entry->d_name)) {
      code = m2se_error_set(error, M2SE_EFORMAT, "%s: '%s' does not belong to a generation", directory,
                            entry->d_name);
    }
  }
  closedir(opened);
  return code;
}

static int check_shape(const char *path, const struct m2se_config *config, struct m2se_error *error) {
  struct m2se_config shape = *config;
  int code = m2se_model_read_config(path, &shape, error);
  if (code == 0 &&
      (shape.d != config->d || shape.da != config->da || shape.h != config->h ||
       shape.experts != config->experts || shape.layers != config->layers || shape.heads != config->heads ||
       shape.ffn != config->ffn || shape.max_len != config->max_len)) {
    code = m2se_error_set(error, M2SE_ESHAPE, "%s: not of the shape that the manifest says", path);
  }
  return code;
}

static int check_fence(const struct m2sed_fence *fence, const struct m2sed_checkpoint_state *state,
                       struct m2se_error *error) {
  if (m2sed_fence_admits(fence, state->generation, state->fence)) {
    return 0;
  }
  return m2se_error_set(error, M2SE_ERANGE,
                        "%s: from a daemon that had been replaced: its fence is %" PRIu64
                        ", and fence %" PRIu64 " went on from generation %" PRIu64,
                        state->directory, state->fence, fence->number, fence->from);
}

/* Everything of one generation. On failure *state is NULL. */
static int load_generation(struct m2sed_checkpoint_state **state, const char *dir, uint64_t generation,
                           const struct m2sed_fence *fence, struct m2se_error *error) {
  struct m2sed_file_sum sums[M2SED_CHECKPOINT_FILES];
  char path[M2SED_PATH_BYTES];
  *state = NULL;
  struct m2sed_checkpoint_state *s = calloc(1, sizeof *s);
  if (s == NULL) {
    return m2se_error_set(error, M2SE_ENOMEM, "%s: loading", dir);
  }
  int code = m2sed_generation_path(s->directory, dir, generation, NULL, error);
  if (code == 0) {
    code = read_manifest(dir, generation, s, sums, error);
  }
  if (code == 0) {
    code = check_fence(fence, s, error);
  }
  if (code == 0) {
    code = check_names(s->directory, error);
  }
  for (int i = 0; i < M2SED_CHECKPOINT_FILES && code == 0; i++) {
    code = m2sed_generation_path(path, dir, generation, m2sed_checkpoint_file_names[i], error);
    if (code == 0) {
      code = check_sum(path, &sums[i], error);
    }
    if (code == 0 && i == M2SED_FILE_MODEL) {
      code = check_shape(path, &s->config, error);
    }
    if (code == 0 && i == M2SED_FILE_STATE) {
      code = m2sed_state_read(path, s, error);
    }
  }
  if (code < 0) {
    m2sed_checkpoint_state_free(s);
    return code;
  }
  *state = s;
  return 0;
}

static bool has_manifest(const char *dir, uint64_t generation) {
  char path[M2SED_PATH_BYTES];
  struct m2se_error error;
  return m2sed_generation_path(path, dir, generation, M2SED_MANIFEST, &error) == 0 &&
         (access(path, F_OK) == 0 || errno != ENOENT);
}

/* Nothing need be wrong with it: it does not count. */
static bool is_replaced(const char *dir, uint64_t generation, const struct m2sed_fence *fence) {
  struct m2sed_file_sum sums[M2SED_CHECKPOINT_FILES];
  struct m2se_error error;
  struct m2sed_checkpoint_state *state = calloc(1, sizeof *state);
  bool replaced = state != NULL && read_manifest(dir, generation, state, sums, &error) == 0 &&
                  !m2sed_fence_admits(fence, generation, state->fence);
  m2sed_checkpoint_state_free(state);
  return replaced;
}

int m2sed_checkpoint_load(struct m2sed_checkpoint_state **state, const char *dir,
                          void (*refused)(void *arg, uint64_t generation, const char *why), void *arg,
                          struct m2se_error *error) {
  uint64_t *generations;
  uint32_t count;
  *state = NULL;
  struct m2sed_fence fence;
  int code = m2sed_fence_newest(dir, &fence, error);
  if (code == 0) {
    code = m2sed_checkpoint_list(dir, &generations, &count, error);
  }
  if (code != 0) {
    return code;
  }
  struct m2se_error why = {0};
  bool unread = false; /* a disk that cannot be read says nothing about a generation either */
  uint32_t replaced = 0;
  for (uint32_t i = count; i > 0; i--) {
    code = load_generation(state, dir, generations[i - 1], &fence, &why);
    replaced += code != 0 && is_replaced(dir, generations[i - 1], &fence);
    if (code == 0 || code == M2SE_ENOMEM) { /* no memory says nothing about the generation */
      break;
    }
    unread |= code == M2SE_EIO && has_manifest(dir, generations[i - 1]);
    if (refused != NULL) {
      refused(arg, generations[i - 1], why.text);
    }
  }
  free(generations);
  if (count == replaced) {
    return m2se_error_set(error, M2SE_EMISSING, "%s: no generation", dir);
  }
  if (code == M2SE_ENOMEM) {
    return m2se_error_set(error, code, "%s", why.text);
  }
  return code == 0
             ? 0
             : m2se_error_set(error, unread ? M2SE_EIO : M2SE_EFORMAT,
                              "%s: none of %u generations can be used; the oldest: %s", dir, count, why.text);
}

int m2sed_checkpoint_oldest(const char *dir, struct m2sed_position **positions, uint32_t *position_count,
                            struct m2se_error *error) {
  struct m2sed_file_sum sums[M2SED_CHECKPOINT_FILES];
  struct m2se_error damage;
  uint64_t *generations;
  uint32_t count;
  *positions = NULL;
  *position_count = 0;
  int code = m2sed_checkpoint_list(dir, &generations, &count, error);
  if (code < 0) {
    return code;
  }
  bool found = false;
  for (uint32_t i = 0; i < count && !found && code == 0; i++) {
    struct m2sed_checkpoint_state *state = calloc(1, sizeof *state);
    if (state == NULL) {
      code = m2se_error_set(error, M2SE_ENOMEM, "%s: positions", dir);
    } else if (read_manifest(dir, generations[i], state, sums, &damage) == 0) {
      found = true;
      *positions = state->positions;
      *position_count = state->position_count;
      state->positions = NULL;
    } /* else: it cannot be loaded either */
    m2sed_checkpoint_state_free(state);
  }
  free(generations);
  return code;
}

int m2sed_checkpoint_verify(const char *dir, uint64_t generation, struct m2se_error *error) {
  struct m2sed_checkpoint_state *state = NULL;
  struct m2sed_fence fence;
  int code = m2sed_fence_newest(dir, &fence, error);
  if (code == 0) {
    code = load_generation(&state, dir, generation, &fence, error);
  }
  m2sed_checkpoint_state_free(state);
  return code;
}
