// What Markdown cannot say. Blocks that scroll sideways can be reached and moved by keyboard; copying buttons
// have names of their own; pictures lead to their full size; a table's empty corner is no heading.
function label() {
  document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code").forEach((block, index) => {
    if (block.scrollWidth > block.clientWidth) {
      block.tabIndex = 0;
      block.setAttribute("role", "region");
      block.setAttribute("aria-label", `block ${index + 1}, scrolls sideways`);
    }
  });
  document.querySelectorAll("nav.md-code__nav:not([aria-label])").forEach((nav, index) => {
    nav.setAttribute("aria-label", `copy block ${index + 1}`);
  });
}

document.querySelectorAll(".md-typeset p > img").forEach((picture) => {
  const link = document.createElement("a");
  link.href = picture.src;
  link.title = "full size";
  picture.replaceWith(link);
  link.append(picture);
});
document.querySelectorAll(".md-typeset th:empty").forEach((corner) => {
  corner.replaceWith(document.createElement("td"));
});
new MutationObserver(label).observe(document.body, { childList: true, subtree: true });
window.addEventListener("resize", label);
label();
