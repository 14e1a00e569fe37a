/* The settings of the daemon: one table, from which parsing, checks, printing and documentation all come.
 *
 * DESIGN. Each setting's default is written as it would stand in a file and goes through the same parser. A
 * value comes from the table, then the file, then the environment (M2SED_SECTION_KEY), each over the one
 * before. configs/m2sed.yaml is what m2sed_config_print says of the defaults, byte for byte (a test sees to
 * it). Errors are codes of model/error.h; the text reads "FILE:LINE: SECTION.KEY: rule" and, for an unknown
 * name, names the nearest known one.
 * Thread: filled by one thread before others start, read only from then on.
 */
#ifndef M2SED_CONFIG_H
#define M2SED_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

enum { M2SED_TEXT_MAX = 511, M2SED_PROPERTIES_MAX = 64 };

#include "daemon/config_table.h"

/* How each kind of setting lies in the struct. A choice is the number of the word in its list, from 0. */
#define M2SED_FIELD_TEXT(name) char name[M2SED_TEXT_MAX + 1];
#define M2SED_FIELD_COUNT(name) uint64_t name;
#define M2SED_FIELD_REAL(name) double name;
#define M2SED_FIELD_SWITCH(name) bool name;
#define M2SED_FIELD_CHOICE(name) uint32_t name;

struct m2sed_property { /* one line of kafka.properties, passed to librdkafka as it is */
  char name[128];
  char value[M2SED_TEXT_MAX + 1];
};

/* kafka.brokers is config.kafka_brokers, and so on. */
struct m2sed_config {
#define M2SED_FIELD(section, key, kind, initial, min, max, words, help) M2SED_FIELD_##kind(section##_##key)
  M2SED_SETTINGS(M2SED_FIELD)
#undef M2SED_FIELD
  uint32_t kafka_property_count;
  struct m2sed_property kafka_properties[M2SED_PROPERTIES_MAX];
};

/* The words of the choices, in the order of the table. */
enum m2sed_on_lost { M2SED_ON_LOST_STOP, M2SED_ON_LOST_CONTINUE };
enum m2sed_targets { M2SED_TARGETS_ALL, M2SED_TARGETS_LAST };
enum m2sed_overload { M2SED_OVERLOAD_PAUSE, M2SED_OVERLOAD_SHRINK };

void m2sed_config_defaults(struct m2sed_config *config);

/* Takes a YAML text over what is set; label is its name in errors. M2SE_EFORMAT (not YAML, or not of our
 * form), M2SE_EMISSING (unknown name), M2SE_ERANGE, M2SE_ENOMEM; config is then partly changed. */
int m2sed_config_parse(struct m2sed_config *config, const char *text, size_t size, const char *label,
                       struct m2se_error *error);
/* M2SED_SECTION_KEY=value of a NULL-terminated environment. Names that begin with a known section and are no
 * setting are refused, others ignored. */
int m2sed_config_parse_environment(struct m2sed_config *config, char *const *environment,
                                   struct m2se_error *error);
/* One setting, "section.key" (or "kafka.properties.NAME"); where: who says so, for errors. */
int m2sed_config_set(struct m2sed_config *config, const char *name, const char *value, const char *where,
                     struct m2se_error *error);
/* Rules that bind several settings. */
int m2sed_config_check(const struct m2sed_config *config, struct m2se_error *error);

/* All of the above: defaults, the file (path NULL: none), the environment, the check. M2SE_EIO names the
 * file. */
int m2sed_config_load(struct m2sed_config *config, const char *path, char *const *environment,
                      struct m2se_error *error);

/* YAML with each setting's explanation above it. NUL-terminated, freed by the caller; NULL: no memory. */
char *m2sed_config_print(const struct m2sed_config *config);

/* kafka.start as milliseconds since 1970, or one of these. */
enum { M2SED_START_EARLIEST = -2, M2SED_START_LATEST = -1 };
int64_t m2sed_config_start(const struct m2sed_config *config);

#endif
