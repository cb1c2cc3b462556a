// The images of a message: read from files as data URLs, which the page can show and the server takes.

const MAX_BYTES = 5 * 1024 * 1024; // of all images of a message: the agent passes on 8 MiB, in base64

export class TooLarge extends Error {}

// Returns `before` and the images in the files, as {name, url}. Throws TooLarge if a message cannot hold them all.
export async function imagesOf(files, before) {
  const images = [...before, ...(await Promise.all(files.map(read)))];
  const size = images.reduce((sum, each) => sum + (base64Of(each.url).length * 3) / 4, 0);
  if (size > MAX_BYTES) throw new TooLarge("These images have over 5 MiB together; attach fewer or smaller ones.");
  return images;
}

export const base64Of = (url) => url.slice(url.indexOf(",") + 1);

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve({ name: file.name, url: reader.result });
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
