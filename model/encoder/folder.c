#include "model/encoder/folder.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "model/files/file.h"
#include "model/files/json.h"
#include "model/files/safetensors.h"
#include "model/kernels/kernels.h"

enum { SHARDS_MAX = 64, PREFIX_MAX = 32 };

struct shard {
  char *name; /* of the file in the folder */
  struct m2se_safetensors *file;
  bool *read; /* [tensors] */
};

struct m2se_folder {
  const char *path; /* borrowed while it is opened */
  char prefix[PREFIX_MAX];
  uint32_t shard_count;
  struct shard shards[SHARDS_MAX];
};

float *m2se_floats_new(size_t n) {
  const size_t line = 64, bytes = (n * sizeof(float) + line - 1) / line * line;
  return aligned_alloc(line, bytes ? bytes : line);
}

static int no_memory(struct m2se_error *error) {
  return m2se_error_set(error, M2SE_ENOMEM, "no memory for the names of a model's tensors");
}

static int open_shard(struct m2se_folder *folder, const char *name, struct m2se_error *error) {
  char path[PATH_MAX];
  if (folder->shard_count == SHARDS_MAX)
    return m2se_error_set(error, M2SE_ELIMIT, "%s: more than %d files of weights", folder->path, SHARDS_MAX);
  if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder->path, name) >= sizeof(path))
    return m2se_error_set(error, M2SE_ELIMIT, "%s/%s: a path that is too long", folder->path, name);
  struct shard *shard = &folder->shards[folder->shard_count];
  int code = m2se_safetensors_open(&shard->file, path, error);
  if (code)
    return code;
  folder->shard_count++;
  shard->name = strdup(name);
  shard->read = calloc(m2se_safetensors_count(shard->file) + 1, sizeof(*shard->read));
  return shard->name && shard->read ? 0 : no_memory(error);
}

static struct shard *find_shard(struct m2se_folder *folder, const char *name) {
  for (uint32_t i = 0; i < folder->shard_count; i++)
    if (!strcmp(folder->shards[i].name, name))
      return &folder->shards[i];
  return NULL;
}

/* Opens the files of the index, each once, and looks for every tensor where the index says that it is. */
static int open_listed(struct m2se_folder *folder, const struct m2se_json *index, struct m2se_error *error) {
  const struct m2se_json *map = m2se_json_get(index, "weight_map");
  int code = m2se_json_as_object(map, "weight_map", error);
  struct m2se_json_iterator member = {0};
  while (!code && m2se_json_next(map, &member)) {
    const char *name;
    code = m2se_json_as_string(member.value, "a file in weight_map", &name, NULL, error);
    if (code)
      break;
    if (strchr(name, '/'))
      return m2se_error_set(error, M2SE_EFORMAT, "weight_map: '%.80s' is not a file of this folder", name);
    if (!find_shard(folder, name))
      code = open_shard(folder, name, error);
    if (!code && !m2se_safetensors_find(find_shard(folder, name)->file, member.key))
      code = m2se_error_set(error, M2SE_EMISSING, "weight_map: tensor '%s' is not in %s", member.key, name);
  }
  if (!code && !folder->shard_count)
    code = m2se_error_set(error, M2SE_EMISSING, "weight_map: no files");
  return code;
}

static int open_files(struct m2se_folder *folder, struct m2se_error *error) {
  static const char index_name[] = "model.safetensors.index.json";
  struct m2se_json *index;
  int code = open_shard(folder, "model.safetensors", error);
  if (code != M2SE_EMISSING && code != M2SE_EIO)
    return code;
  struct m2se_error other = {0};
  const int missing = m2se_file_read_json(folder->path, index_name, NULL, &index, &other);
  if (missing == M2SE_EMISSING)
    return code; /* neither: the usual name is the one to tell */
  if (missing) {
    if (error)
      *error = other;
    return missing;
  }
  code = open_listed(folder, index, error);
  m2se_json_free(index);
  return code ? m2se_error_prefix(error, code, "%s/%s", folder->path, index_name) : 0;
}

int m2se_folder_open(struct m2se_folder **folder, const char *path, struct m2se_error *error) {
  *folder = NULL;
  struct m2se_folder *f = calloc(1, sizeof(*f));
  if (!f)
    return no_memory(error);
  f->path = path;
  int code = open_files(f, error);
  f->path = NULL;
  if (code) {
    m2se_folder_close(f);
    return code;
  }
  *folder = f;
  return 0;
}

void m2se_folder_close(struct m2se_folder *folder) {
  for (uint32_t i = 0; folder && i < folder->shard_count; i++) {
    m2se_safetensors_close(folder->shards[i].file);
    free(folder->shards[i].name);
    free(folder->shards[i].read);
  }
  free(folder);
}

/* The place of a tensor by its whole name. */
static struct shard *find_tensor(struct m2se_folder *folder, const char *name, uint32_t *index) {
  for (uint32_t s = 0; s < folder->shard_count; s++)
    for (uint32_t i = 0; i < m2se_safetensors_count(folder->shards[s].file); i++)
      if (!strcmp(m2se_safetensors_at(folder->shards[s].file, i)->name, name)) {
        *index = i;
        return &folder->shards[s];
      }
  return NULL;
}

int m2se_folder_choose_prefix(struct m2se_folder *folder, const char *const *prefixes, size_t count,
                              const char *name, struct m2se_error *error) {
  for (size_t i = 0; i < count; i++) {
    char whole[M2SE_TENSOR_NAME_MAX + 1];
    uint32_t index;
    snprintf(whole, sizeof(whole), "%s%s", prefixes[i], name);
    if (find_tensor(folder, whole, &index)) {
      snprintf(folder->prefix, sizeof(folder->prefix), "%s", prefixes[i]);
      return 0;
    }
  }
  return m2se_error_set(error, M2SE_EMISSING, "%s: no tensor '%s'",
                        m2se_safetensors_label(folder->shards[0].file), name);
}

/* name becomes the older one of a LayerNorm's parameter, if that is what it names. */
static bool older_name(char *name, size_t size) {
  static const char *const pairs[][2] = {{"LayerNorm.weight", "LayerNorm.gamma"},
                                         {"LayerNorm.bias", "LayerNorm.beta"}};
  for (size_t i = 0; i < 2; i++) {
    const size_t length = strlen(name), end = strlen(pairs[i][0]);
    if (length >= end && !strcmp(name + length - end, pairs[i][0])) {
      snprintf(name + length - end, size - (length - end), "%s", pairs[i][1]);
      return true;
    }
  }
  return false;
}

int m2se_folder_read(struct m2se_folder *folder, const char *name, uint32_t rank, const uint64_t *shape,
                     float *out, struct m2se_error *error) {
  char whole[M2SE_TENSOR_NAME_MAX + 1];
  uint32_t index;
  snprintf(whole, sizeof(whole), "%s%s", folder->prefix, name);
  struct shard *shard = find_tensor(folder, whole, &index);
  if (!shard && older_name(whole, sizeof(whole)))
    shard = find_tensor(folder, whole, &index);
  if (!shard)
    return m2se_error_set(error, M2SE_EMISSING, "%s%s: no tensor '%s%s'",
                          m2se_safetensors_label(folder->shards[0].file),
                          folder->shard_count > 1 ? " and the files beside it" : "", folder->prefix, name);
  shard->read[index] = true;
  int code = m2se_safetensors_read_f32(shard->file, whole, rank, shape, out, error);
  const size_t n = m2se_safetensors_at(shard->file, index)->count;
  if (!code && !isfinite(m2se_kernels_best()->sum_squares(out, n)))
    code = m2se_error_set(error, M2SE_ENUMERIC, "%s: tensor '%s' has numbers that are not finite",
                          m2se_safetensors_label(shard->file), whole);
  return code;
}

int m2se_folder_read_vector(struct m2se_folder *folder, const char *name, const char *part, size_t n,
                            float *out, struct m2se_error *error) {
  char whole[M2SE_TENSOR_NAME_MAX + 1];
  snprintf(whole, sizeof(whole), "%s%s", name, part);
  return m2se_folder_read(folder, whole, 1, (uint64_t[]){n}, out, error);
}

int m2se_folder_read_matrix(struct m2se_folder *folder, const char *name, const char *part, size_t rows,
                            size_t columns, float *out, struct m2se_error *error) {
  char whole[M2SE_TENSOR_NAME_MAX + 1];
  snprintf(whole, sizeof(whole), "%s%s", name, part);
  return m2se_folder_read(folder, whole, 2, (uint64_t[]){rows, columns}, out, error);
}

static bool is_ignored(const struct m2se_folder *folder, const char *name, const char *const *ignored,
                       size_t count) {
  static const char ids[] = "position_ids";
  const size_t length = strlen(name), prefix = strlen(folder->prefix);
  if (length >= sizeof(ids) - 1 && !strcmp(name + length - (sizeof(ids) - 1), ids))
    return true;
  const char *rest = strncmp(name, folder->prefix, prefix) ? name : name + prefix;
  for (size_t i = 0; i < count; i++)
    if (!strncmp(rest, ignored[i], strlen(ignored[i])))
      return true;
  return false;
}

int m2se_folder_finish(const struct m2se_folder *folder, const char *const *ignored, size_t count,
                       struct m2se_error *error) {
  for (uint32_t s = 0; s < folder->shard_count; s++) {
    const struct shard *shard = &folder->shards[s];
    for (uint32_t i = 0; i < m2se_safetensors_count(shard->file); i++) {
      const char *name = m2se_safetensors_at(shard->file, i)->name;
      if (!shard->read[i] && !is_ignored(folder, name, ignored, count))
        return m2se_error_set(error, M2SE_EFORMAT,
                              "%s: tensor '%s' has no place in a model as config.json says",
                              m2se_safetensors_label(shard->file), name);
    }
  }
  return 0;
}

/* Names and sizes go in too, so that nothing can move from one file or tensor to the next unnoticed. */
static int digest_files(const char *path, XXH3_state_t *state, struct m2se_error *error) {
  static const char *const names[] = {"config.json",
                                      "tokenizer.json",
                                      "tokenizer_config.json",
                                      "vocab.txt",
                                      "vocab.json",
                                      "merges.txt",
                                      "sentence_bert_config.json",
                                      "1_Pooling/config.json",
                                      "modules.json",
                                      "preprocessor_config.json"};
  const size_t bytes_max = 64 << 20;
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    char *text;
    size_t size;
    int code = m2se_file_read(path, names[i], bytes_max, &text, &size, error);
    if (code == M2SE_EMISSING)
      continue;
    if (code)
      return code;
    XXH3_128bits_update(state, names[i], strlen(names[i]) + 1);
    XXH3_128bits_update(state, &size, sizeof(size));
    XXH3_128bits_update(state, text, size);
    free(text);
  }
  return 0;
}

int m2se_folder_digest(const char *path, char digest[M2SE_FOLDER_DIGEST], struct m2se_error *error) {
  struct m2se_folder *folder;
  int code = m2se_folder_open(&folder, path, error);
  if (code)
    return code;
  XXH3_state_t *state = XXH3_createState();
  if (!state) {
    m2se_folder_close(folder);
    return no_memory(error);
  }
  XXH3_128bits_reset(state);
  for (uint32_t s = 0; s < folder->shard_count; s++)
    for (uint32_t i = 0; i < m2se_safetensors_count(folder->shards[s].file); i++) {
      const struct m2se_tensor *tensor = m2se_safetensors_at(folder->shards[s].file, i);
      const uint32_t dtype = (uint32_t)tensor->dtype;
      XXH3_128bits_update(state, tensor->name, strlen(tensor->name) + 1);
      XXH3_128bits_update(state, &dtype, sizeof(dtype));
      XXH3_128bits_update(state, tensor->shape, tensor->rank * sizeof(*tensor->shape));
      XXH3_128bits_update(state, tensor->data, tensor->bytes);
    }
  m2se_folder_close(folder);
  code = digest_files(path, state, error);
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  snprintf(digest, M2SE_FOLDER_DIGEST, "%016llx%016llx", (unsigned long long)hash.high64,
           (unsigned long long)hash.low64);
  return code;
}

const struct m2se_json *m2se_folder_member(const struct m2se_json *object, const char *key) {
  const struct m2se_json *value = m2se_json_get(object, key);
  return value && m2se_json_type(value) == M2SE_JSON_NULL ? NULL : value;
}

int m2se_folder_setting(const struct m2se_json *object, const char *key, uint32_t standard, uint32_t min,
                        uint32_t max, uint32_t *number, struct m2se_error *error) {
  uint64_t found = standard;
  const struct m2se_json *value = m2se_folder_member(object, key);
  int code = value ? m2se_json_as_uint64(value, key, &found, error) : 0;
  if (!code && (found < min || found > max))
    code = m2se_error_set(error, M2SE_ERANGE, "%s: %llu, not %u to %u", key, (unsigned long long)found, min,
                          max);
  if (!code)
    *number = (uint32_t)found;
  return code;
}
