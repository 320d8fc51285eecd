// What items are called: read once each, for all that speaks of an item by its id.

import { api, say } from "./core.js";

const titles = new Map();

export const know = (items) => { for (const item of items) titles.set(item.id, item.title); };

/** Asks the catalogue for titles that are not known yet; an item that was withdrawn keeps its id. */
export async function learnTitles(ids) {
  const unknown = [...new Set(ids)].filter((id) => !titles.has(id));
  await Promise.all(unknown.map(async (id) => {
    try {
      know([(await api(`/v1/items/${encodeURIComponent(id)}`)).item]);
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }));
}

/** The title in the console's language, else in any. */
export const titled = (title) => title[say.language] || Object.values(title)[0];

/** An item by its title; by its id where nobody knows it. */
export const called = (id) => (titles.has(id) ? titled(titles.get(id)) : id);
