// The images of a message: read from files as data URLs, which the page can show and the server takes.

const MAX_BYTES = 5 * 1024 * 1024; // of all images of a request: the agent passes on 8 MiB, in base64
const MAX_IMAGES = 32; // of a request: the default of mlx.max_images

export class TooLarge extends Error {}

// Returns `before` and the images in the files, as {name, url}. Throws TooLarge if a message cannot hold them all.
export async function imagesOf(files, before) {
  const images = [...before, ...(await Promise.all(files.map(read)))];
  if (sizeOf(images) > MAX_BYTES) throw new TooLarge("These images have over 5 MiB together; attach fewer or smaller ones.");
  return images;
}

// Returns the turns whose images a request can send: the newest ones whose images it can hold together.
export function turnsWithRoom(turns) {
  const found = new Set();
  let size = 0, count = 0;
  for (const turn of turns.filter((each) => each.images?.length).reverse()) {
    size += sizeOf(turn.images);
    count += turn.images.length;
    if (found.size && (size > MAX_BYTES || count > MAX_IMAGES)) break;
    found.add(turn);
  }
  return found;
}

const sizeOf = (images) => images.reduce((sum, each) => sum + (base64Of(each.url).length * 3) / 4, 0);

export const base64Of = (url) => url.slice(url.indexOf(",") + 1);

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve({ name: file.name, url: reader.result });
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
