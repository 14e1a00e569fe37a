#include "daemon/ctl/embedded.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int m2sed_ctl_find_embedded(struct m2sed_config *config, struct m2se_error *error) {
  char path[PATH_MAX], brokers[M2SED_TEXT_MAX + 2], redis[PATH_MAX], uri[PATH_MAX + 32];
  snprintf(path, sizeof path, "%s/brokers", config->daemon_state_dir);
  FILE *file = fopen(path, "re");
  if (!file)
    return m2se_error_set(error, M2SE_EMISSING, "%s: %s: no daemon with --embedded runs there", path,
                          strerror(errno));
  bool read = fgets(brokers, sizeof brokers, file);
  fclose(file);
  if (!read)
    return m2se_error_set(error, M2SE_EMISSING, "%s: empty", path);
  brokers[strcspn(brokers, "\n")] = '\0';
  snprintf(path, sizeof path, "%s/redis", config->daemon_state_dir);
  if (!realpath(path, redis))
    return m2se_error_set(error, M2SE_EMISSING, "%s: %s", path, strerror(errno));
  snprintf(uri, sizeof uri, "unix://%s/redis.sock", redis);
  int code = m2sed_config_set(config, "kafka.brokers", brokers, path, error);
  return code ? code : m2sed_config_set(config, "redis.uri", uri, path, error);
}
