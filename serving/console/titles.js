// Titles of items, loaded once each, for every place that names an item by its id.

import { api, i18n } from "./core.js";

const titles = new Map();

export const addTitles = (items) => { for (const item of items) titles.set(item.id, item.title); };

/** Load the titles that are missing from the catalog. A withdrawn item keeps its id. */
export async function loadTitles(ids) {
  const missing = [...new Set(ids)].filter((id) => !titles.has(id));
  await Promise.all(missing.map(async (id) => {
    try {
      addTitles([(await api(`/v1/items/${encodeURIComponent(id)}`)).item]);
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }));
}

/** Return a title in the console's language, or in any language it has. */
export const titleText = (title) => title[i18n.language] || Object.values(title)[0];

/** Return the title of an item, or its id when the title is not loaded. */
export const itemTitle = (id) => (titles.has(id) ? titleText(titles.get(id)) : id);
