#include "daemon/config.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_setting.h"
#include "daemon/config_yaml.h"
#include "ingest/keys.h"

const struct m2sed_setting m2sed_settings[] = {
#define M2SED_ROW(section, key, kind, initial, min, max, words, help)                                        \
  {#section, #key, M2SED_KIND_##kind,                                                                        \
   initial,  min,  max,                                                                                      \
   words,    help, offsetof(struct m2sed_config, section##_##key)},
    M2SED_SETTINGS(M2SED_ROW)
#undef M2SED_ROW
};
const uint32_t m2sed_setting_count = sizeof m2sed_settings / sizeof m2sed_settings[0];

static void *field_of(struct m2sed_config *config, const struct m2sed_setting *setting) {
  return (char *)config + setting->offset;
}

/* Number of the word in "a|b|c", or -1. */
static int find_word(const char *words, const char *value) {
  size_t size = strlen(value);
  for (int i = 0;; i++) {
    size_t length = strcspn(words, "|");
    if (length == size && !memcmp(words, value, size))
      return i;
    if (!words[length])
      return -1;
    words += length + 1;
  }
}

static int out_of_range(const struct m2sed_setting *setting, const char *where, struct m2se_error *error) {
  return m2se_error_set(error, M2SE_ERANGE, "%s: %s.%s: must be %.15g to %.15g%s", where, setting->section,
                        setting->key, setting->min, setting->max,
                        setting->kind == M2SED_KIND_TEXT ? " bytes long" : "");
}

static int wrong_type(const struct m2sed_setting *setting, const char *where, const char *rule,
                      const char *value, struct m2se_error *error) {
  return m2se_error_set(error, M2SE_ETYPE, "%s: %s.%s: must be %s, not '%.80s'", where, setting->section,
                        setting->key, rule, value);
}

static int set_value(struct m2sed_config *config, const struct m2sed_setting *setting, const char *value,
                     const char *where, struct m2se_error *error) {
  void *field = field_of(config, setting);
  char *end;
  errno = 0;
  switch (setting->kind) {
  case M2SED_KIND_TEXT: {
    size_t size = strlen(value);
    if (size > M2SED_TEXT_MAX || (double)size < setting->min || (double)size > setting->max)
      return out_of_range(setting, where, error);
    for (size_t i = 0; i < size; i++)
      if (iscntrl((unsigned char)value[i]))
        return m2se_error_set(error, M2SE_ETYPE, "%s: %s.%s: has control characters", where, setting->section,
                              setting->key);
    memcpy(field, value, size + 1);
    return 0;
  }
  case M2SED_KIND_COUNT: {
    uint64_t number = strtoull(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end)
      return wrong_type(setting, where, "a whole number", value, error);
    if (errno || (double)number < setting->min || (double)number > setting->max)
      return out_of_range(setting, where, error);
    memcpy(field, &number, sizeof number);
    return 0;
  }
  case M2SED_KIND_REAL: {
    double number = strtod(value, &end);
    if (!value[0] || *end || isspace((unsigned char)value[0]) || strpbrk(value, "xXnN"))
      return wrong_type(setting, where, "a number", value, error);
    if (!isfinite(number) || number < setting->min || number > setting->max)
      return out_of_range(setting, where, error);
    memcpy(field, &number, sizeof number);
    return 0;
  }
  case M2SED_KIND_SWITCH: {
    int word = find_word("false|true|off|on|no|yes", value);
    if (word < 0)
      return wrong_type(setting, where, "true or false", value, error);
    *(bool *)field = word & 1;
    return 0;
  }
  case M2SED_KIND_CHOICE: {
    int word = find_word(setting->words, value);
    if (word < 0)
      return m2se_error_set(error, M2SE_ETYPE, "%s: %s.%s: must be one of %s, not '%.80s'", where,
                            setting->section, setting->key, setting->words, value);
    *(uint32_t *)field = (uint32_t)word;
    return 0;
  }
  }
  assert(false);
  return M2SE_EINVAL;
}

void m2sed_config_defaults(struct m2sed_config *config) {
  memset(config, 0, sizeof *config);
  for (uint32_t i = 0; i < m2sed_setting_count; i++) {
    struct m2se_error error;
    int code = set_value(config, &m2sed_settings[i], m2sed_settings[i].initial, "default", &error);
    assert(code == 0); /* the table contradicts itself */
  }
}

static const struct m2sed_setting *find_setting(const char *name) {
  for (uint32_t i = 0; i < m2sed_setting_count; i++) {
    const struct m2sed_setting *setting = &m2sed_settings[i];
    size_t section = strlen(setting->section);
    if (!strncmp(name, setting->section, section) && name[section] == '.' &&
        !strcmp(name + section + 1, setting->key))
      return setting;
  }
  return NULL;
}

static int set_property(struct m2sed_config *config, const char *name, const char *value, const char *where,
                        struct m2se_error *error) {
  uint32_t i = 0;
  while (i < config->kafka_property_count && strcmp(config->kafka_properties[i].name, name))
    i++;
  struct m2sed_property *property = &config->kafka_properties[i];
  if (i == M2SED_PROPERTIES_MAX)
    return m2se_error_set(error, M2SE_ELIMIT, "%s: kafka.properties: more than %d", where,
                          M2SED_PROPERTIES_MAX);
  if (!*name || strlen(name) >= sizeof property->name || strlen(value) >= sizeof property->value)
    return m2se_error_set(error, M2SE_ERANGE,
                          "%s: kafka.properties.%.100s: name or value is empty or too long", where, name);
  memcpy(property->name, name, strlen(name) + 1);
  memcpy(property->value, value, strlen(value) + 1);
  config->kafka_property_count += i == config->kafka_property_count;
  return 0;
}

/* Edits (insert, delete, replace, swap of neighbours counted as two) between two names; long ones are far. */
static uint32_t edit_distance(const char *a, const char *b) {
  enum { MAX = 64 };
  uint32_t row[MAX + 1];
  size_t columns = strlen(b);
  if (columns > MAX || strlen(a) > MAX)
    return UINT32_MAX;
  for (size_t j = 0; j <= columns; j++)
    row[j] = (uint32_t)j;
  for (; *a; a++) {
    uint32_t diagonal = row[0]++;
    for (size_t j = 1; j <= columns; j++) {
      uint32_t replace = diagonal + (*a != b[j - 1]);
      uint32_t edit = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
      diagonal = row[j];
      row[j] = replace < edit ? replace : edit;
    }
  }
  return row[columns];
}

static int unknown_name(const char *name, const char *where, struct m2se_error *error) {
  char best[128] = "";
  uint32_t least = UINT32_MAX;
  const char *key = strchr(name, '.') ? strchr(name, '.') + 1 : name;
  for (uint32_t i = 0; i < m2sed_setting_count; i++) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", m2sed_settings[i].section, m2sed_settings[i].key);
    uint32_t distance = edit_distance(name, full);
    /* The right key in the wrong section is one mistake, not as many as the sections differ in. */
    if (!strcmp(key, m2sed_settings[i].key) && distance > 1)
      distance = 1;
    if (distance < least) {
      least = distance;
      memcpy(best, full, sizeof best);
    }
  }
  return m2se_error_set(error, M2SE_EMISSING, "%s: %.200s: no such setting; the nearest is %s", where, name,
                        best);
}

int m2sed_config_set(struct m2sed_config *config, const char *name, const char *value, const char *where,
                     struct m2se_error *error) {
  static const char properties[] = "kafka.properties.";
  if (!strncmp(name, properties, sizeof properties - 1))
    return set_property(config, name + sizeof properties - 1, value, where, error);
  const struct m2sed_setting *setting = find_setting(name);
  if (!setting)
    return unknown_name(name, where, error);
  return set_value(config, setting, value, where, error);
}

struct file_source {
  struct m2sed_config *config;
  const char *label;
};

static int visit_value(void *arg, const char *name, const char *value, uint32_t line,
                       struct m2se_error *error) {
  struct file_source *source = arg;
  char where[300];
  snprintf(where, sizeof where, "%.250s:%u", source->label, line);
  return m2sed_config_set(source->config, name, value, where, error);
}

int m2sed_config_parse(struct m2sed_config *config, const char *text, size_t size, const char *label,
                       struct m2se_error *error) {
  struct file_source source = {config, label};
  return m2sed_yaml_read(text, size, label, visit_value, &source, error);
}

int m2sed_config_parse_environment(struct m2sed_config *config, char *const *environment,
                                   struct m2se_error *error) {
  for (; *environment; environment++) {
    const char *equals = strchr(*environment, '=');
    if (strncmp(*environment, "M2SED_", 6) || !equals || equals - *environment > 100)
      continue;
    char name[128];
    size_t size = (size_t)(equals - *environment) - 6;
    for (size_t i = 0; i < size; i++)
      name[i] = (char)tolower((unsigned char)(*environment)[6 + i]);
    name[size] = 0;
    char *underscore = strchr(name, '_');
    if (!underscore)
      continue;
    *underscore = 0;
    bool known = false;
    for (uint32_t i = 0; i < m2sed_setting_count; i++)
      known |= !strcmp(name, m2sed_settings[i].section);
    *underscore = '.';
    if (!known)
      continue;
    char where[160];
    snprintf(where, sizeof where, "environment %.*s", (int)(equals - *environment), *environment);
    int code = m2sed_config_set(config, name, equals + 1, where, error);
    if (code)
      return code;
  }
  return 0;
}

static int read_file(const char *path, char **text, size_t *size, struct m2se_error *error) {
  FILE *file = fopen(path, "rb");
  if (!file)
    return m2se_error_set(error, M2SE_EIO, "%s: %s", path, strerror(errno));
  *text = malloc(M2SED_YAML_BYTES_MAX + 2);
  int code = *text ? 0 : m2se_error_set(error, M2SE_ENOMEM, "%s: out of memory", path);
  if (!code) {
    *size = fread(*text, 1, M2SED_YAML_BYTES_MAX + 1, file);
    if (ferror(file))
      code = m2se_error_set(error, M2SE_EIO, "%s: %s", path, strerror(errno));
  }
  fclose(file);
  if (code) {
    free(*text);
    *text = NULL;
  }
  return code;
}

int m2sed_config_load(struct m2sed_config *config, const char *path, char *const *environment,
                      struct m2se_error *error) {
  m2sed_config_defaults(config);
  if (path) {
    char *text = NULL;
    size_t size = 0;
    int code = read_file(path, &text, &size, error);
    if (!code)
      code = m2sed_config_parse(config, text, size, path, error);
    free(text);
    if (code)
      return code;
  }
  int code = environment ? m2sed_config_parse_environment(config, environment, error) : 0;
  return code ? code : m2sed_config_check(config, error);
}

int64_t m2sed_config_start(const struct m2sed_config *config) {
  int word = find_word("earliest|latest", config->kafka_start);
  if (word >= 0)
    return word == 0 ? M2SED_START_EARLIEST : M2SED_START_LATEST;
  char *end;
  errno = 0;
  long long ms = strtoll(config->kafka_start, &end, 10);
  return errno || *end || ms < 0 ? INT64_MIN : ms;
}

int m2sed_config_check(const struct m2sed_config *config, struct m2se_error *error) {
  if (m2sed_config_start(config) == INT64_MIN)
    return m2se_error_set(error, M2SE_ERANGE,
                          "kafka.start: must be earliest, latest or milliseconds since 1970, not '%s'",
                          config->kafka_start);
  const char *topics[] = {config->kafka_interactions, config->kafka_items, config->kafka_erasures,
                          config->kafka_status};
  for (uint32_t i = 0; i < 4; i++)
    for (uint32_t j = 0; j < i; j++)
      if (topics[i][0] && !strcmp(topics[i], topics[j]))
        return m2se_error_set(error, M2SE_EINVAL, "kafka: two topics have the name '%s'", topics[i]);
  if (config->sequence_keep <= config->sequence_length)
    return m2se_error_set(
        error, M2SE_EINVAL,
        "sequence.keep: must be more than sequence.length (%llu): a replayed event needs its "
        "context again",
        (unsigned long long)config->sequence_length);
  if (config->model_hidden % config->model_heads)
    return m2se_error_set(error, M2SE_EINVAL, "model.hidden: must be a multiple of model.heads (%llu)",
                          (unsigned long long)config->model_heads);
  int code = m2se_key_check_prefix(config->redis_prefix, error);
  return code ? m2se_error_prefix(error, code, "redis.prefix") : 0;
}
