#include "model/text/trie.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/error.h"

#define NODES_MAX (1u << 24) /* so that node * 256 + byte + 1 stays below 2^32 */

static uint32_t edge_key(uint32_t node, uint8_t byte) {
  return (node << 8 | byte) + 1;
}

/* Where the edge of this key is, or the free place where it would be. There always is one. */
static struct m2se_trie_edge *edge_place(const struct m2se_trie *trie, uint32_t key) {
  uint32_t mask = trie->edges_size - 1;
  uint32_t place = (uint32_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & mask;
  while (trie->edges[place].key != key && trie->edges[place].key != 0) {
    place = (place + 1) & mask;
  }
  return &trie->edges[place];
}

static int grow_values(struct m2se_trie *trie) {
  uint32_t size = trie->values_size ? 2 * trie->values_size : 256;
  uint32_t *values = realloc(trie->values, size * sizeof(values[0]));
  if (!values) {
    return M2SE_ENOMEM;
  }
  memset(values + trie->values_size, 0xFF, (size - trie->values_size) * sizeof(values[0]));
  trie->values = values;
  trie->values_size = size;
  trie->nodes += trie->nodes == 0; /* the root */
  return 0;
}

static int grow_edges(struct m2se_trie *trie) {
  struct m2se_trie_edge *old = trie->edges;
  uint32_t old_size = trie->edges_size, size = old_size ? 2 * old_size : 512;
  struct m2se_trie_edge *edges = calloc(size, sizeof(edges[0]));
  if (!edges) {
    return M2SE_ENOMEM;
  }
  trie->edges = edges;
  trie->edges_size = size;
  for (uint32_t i = 0; i < old_size; i++) {
    if (old[i].key != 0) {
      *edge_place(trie, old[i].key) = old[i];
    }
  }
  free(old);
  return 0;
}

/* Room for one more node and its edge, with a third of the table free. */
static int grow(struct m2se_trie *trie) {
  int code = trie->nodes >= NODES_MAX ? M2SE_ELIMIT : 0;
  if (!code && trie->nodes >= trie->values_size) {
    code = grow_values(trie);
  }
  if (!code && (uint64_t)trie->nodes * 3 >= (uint64_t)trie->edges_size * 2) {
    code = grow_edges(trie);
  }
  return code;
}

int m2se_trie_add(struct m2se_trie *trie, const char *string, size_t size, uint32_t value) {
  assert(value != M2SE_TRIE_NONE);
  uint32_t node = M2SE_TRIE_ROOT;
  for (size_t i = 0;; i++) {
    int code = grow(trie); /* also makes the root, of which an empty string needs no more */
    if (code) {
      return code;
    }
    if (i == size) {
      break;
    }
    uint32_t key = edge_key(node, (uint8_t)string[i]);
    struct m2se_trie_edge *edge = edge_place(trie, key);
    if (edge->key == 0) {
      *edge = (struct m2se_trie_edge){key, trie->nodes++};
    }
    node = edge->node;
  }
  trie->values[node] = value;
  return 0;
}

void m2se_trie_free(struct m2se_trie *trie) {
  free(trie->edges);
  free(trie->values);
  *trie = (struct m2se_trie){0};
}

uint32_t m2se_trie_step(const struct m2se_trie *trie, uint32_t node, uint8_t byte) {
  if (trie->nodes == 0) {
    return M2SE_TRIE_NONE;
  }
  const struct m2se_trie_edge *edge = edge_place(trie, edge_key(node, byte));
  return edge->key == 0 ? M2SE_TRIE_NONE : edge->node;
}

uint32_t m2se_trie_value(const struct m2se_trie *trie, uint32_t node) {
  return trie->nodes == 0 ? M2SE_TRIE_NONE : trie->values[node];
}

uint32_t m2se_trie_find(const struct m2se_trie *trie, const char *string, size_t size) {
  uint32_t node = M2SE_TRIE_ROOT;
  for (size_t i = 0; i < size && node != M2SE_TRIE_NONE; i++) {
    node = m2se_trie_step(trie, node, (uint8_t)string[i]);
  }
  return node == M2SE_TRIE_NONE ? M2SE_TRIE_NONE : m2se_trie_value(trie, node);
}
