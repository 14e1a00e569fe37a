/* The door to libyaml: a settings file as a flat list of names and values. */
#ifndef M2SED_CONFIG_YAML_H
#define M2SED_CONFIG_YAML_H

#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

enum { M2SED_YAML_BYTES_MAX = 1 << 20 };

/* One value. name: "section.key" or "kafka.properties.NAME"; line from 1. Non-zero ends the reading and is
 * returned. Both texts are NUL-terminated and live for the call. */
typedef int m2sed_yaml_visit(void *arg, const char *name, const char *value, uint32_t line,
                             struct m2se_error *error);

/* text: nothing at all, or one document with a mapping of sections, each a mapping of plain values or of
 * mappings of them. M2SE_EFORMAT "LABEL:LINE: what is wrong": not YAML, a list, an alias, a tag, a name that
 * comes twice, NUL bytes, nested too deep. M2SE_ELIMIT: too large. */
int m2sed_yaml_read(const char *text, size_t size, const char *label, m2sed_yaml_visit *visit, void *arg,
                    struct m2se_error *error);

#endif
