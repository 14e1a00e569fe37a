// Settings files: whatever is read without complaint must print as a file that reads back the same.
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct m2sed_config config, copy;
  struct m2se_error error = {0};
  m2sed_config_defaults(&config);
  if (m2sed_config_parse(&config, (const char *)data, size, "fuzz", &error)) {
    assert(error.code != 0 && error.text[0]);
    return 0;
  }
  (void)m2sed_config_check(&config, &error);
  char *text = m2sed_config_print(&config);
  assert(text);
  m2sed_config_defaults(&copy);
  int code = m2sed_config_parse(&copy, text, strlen(text), "printed", &error);
  assert(code == 0);
  assert(memcmp(&config, &copy, sizeof config) == 0);
  free(text);
  return 0;
}
