#include "daemon/ctl/titles.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/files/json.h"

static int take_line(const char *line, size_t size, struct m2sed_title *titles, uint32_t count,
                     struct m2se_error *error) {
  struct m2se_json *root;
  const char *id, *title;
  size_t id_size;
  int code = m2se_json_parse(&root, line, size, NULL, error);
  if (code)
    return code;
  code = m2se_json_as_string(m2se_json_get(root, "item_id"), "item_id", &id, &id_size, error);
  const struct m2se_json *named = m2se_json_get(root, "title");
  for (uint32_t i = 0; i < count && !code && named; i++) {
    if (titles[i].id_size != id_size || memcmp(titles[i].id, id, id_size) != 0)
      continue;
    code = m2se_json_as_string(named, "title", &title, NULL, error);
    if (code)
      break;
    free(titles[i].title);
    titles[i].title = strdup(title);
    if (!titles[i].title)
      code = m2se_error_set(error, M2SE_ENOMEM, "a title");
  }
  m2se_json_free(root);
  return code;
}

int m2sed_titles_read(const char *path, struct m2sed_title *titles, uint32_t count,
                      struct m2se_error *error) {
  FILE *file = fopen(path, "re");
  if (!file)
    return m2se_error_set(error, M2SE_EIO, "%s: %s", path, strerror(errno));
  char *line = NULL;
  size_t capacity = 0;
  uint64_t number = 0;
  int code = 0;
  for (ssize_t size; !code && (size = getline(&line, &capacity, file)) >= 0;) {
    number++;
    if (line[strspn(line, " \t\r\n")])
      code = take_line(line, (size_t)size, titles, count, error);
  }
  if (code)
    m2se_error_prefix(error, code, "%s:%llu", path, (unsigned long long)number);
  else if (ferror(file))
    code = m2se_error_set(error, M2SE_EIO, "%s: %s", path, strerror(errno));
  free(line);
  fclose(file);
  return code;
}

void m2sed_titles_free(struct m2sed_title *titles, uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    free(titles[i].title);
}
