/* One row of the table of settings as the code loops over it; private to config*.c. */
#ifndef M2SED_CONFIG_SETTING_H
#define M2SED_CONFIG_SETTING_H

#include "daemon/config.h"

enum m2sed_setting_kind {
  M2SED_KIND_TEXT,
  M2SED_KIND_COUNT,
  M2SED_KIND_REAL,
  M2SED_KIND_SWITCH,
  M2SED_KIND_CHOICE
};

struct m2sed_setting {
  const char *section, *key;
  enum m2sed_setting_kind kind;
  const char *initial; /* as in a file */
  double min, max;
  const char *words; /* of a choice */
  const char *help;
  size_t offset; /* in struct m2sed_config */
};

extern const struct m2sed_setting m2sed_settings[];
extern const uint32_t m2sed_setting_count;

#endif
