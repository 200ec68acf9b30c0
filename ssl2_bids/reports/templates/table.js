// Sorting, filtering and pages of rows; without this script all rows are shown, as they were written.
var ROWS = 100; // rows of a table that are shown at once

document.querySelectorAll('table').forEach(function (table) {
  var body = table.tBodies[0];
  if (!body) return;
  var rows = Array.prototype.slice.call(body.rows), wanted = '', first = 0, pager = null, where, buttons;

  function show() {
    var found = rows.filter(function (row) { return !wanted || row.textContent.toLowerCase().indexOf(wanted) >= 0; });
    if (first >= found.length) first = 0;
    var end = pager ? first + ROWS : rows.length, shown = found.slice(first, end);
    rows.forEach(function (row) { row.hidden = true; });
    shown.forEach(function (row) { row.hidden = false; });
    if (!pager) return;
    where.textContent = found.length ? first + 1 + ' to ' + (first + shown.length) + ' of ' + found.length : 'no row';
    buttons[0].disabled = first === 0;
    buttons[1].disabled = end >= found.length;
  }

  function turn(step) {
    first = Math.max(0, first + step * ROWS);
    show();
    table.parentNode.scrollTop = 0;
  }

  if (rows.length > ROWS) {
    pager = document.createElement('div');
    pager.className = 'pager';
    buttons = [['Previous', -1], ['Next', 1]].map(function (one) {
      var button = document.createElement('button');
      button.type = 'button';
      button.textContent = one[0];
      button.addEventListener('click', function () { turn(one[1]); });
      return button;
    });
    where = document.createElement('span');
    where.setAttribute('role', 'status');
    [buttons[0], where, buttons[1]].forEach(function (part) { pager.appendChild(part); });
    table.parentNode.parentNode.insertBefore(pager, table.parentNode.nextSibling);
    show();
  }

  var place = table.id && document.querySelector('[data-filter="' + table.id + '"]');
  if (place) {
    var field = document.createElement('input');
    field.type = 'search'; field.className = 'filter'; field.placeholder = 'Show rows that contain ...';
    field.setAttribute('aria-label', 'Show rows that contain');
    place.appendChild(field);
    field.addEventListener('input', function () { wanted = field.value.toLowerCase(); first = 0; show(); });
  }

  if (!table.classList.contains('sortable')) return;
  Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
    var button = document.createElement('button');
    button.type = 'button';
    while (head.firstChild) button.appendChild(head.firstChild);
    head.appendChild(button);
    button.addEventListener('click', function () {
      var down = head.getAttribute('aria-sort') !== 'descending';
      Array.prototype.forEach.call(table.tHead.rows[0].cells, function (other) { other.removeAttribute('aria-sort'); });
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      function key(row) {
        var cell = row.cells[column];
        return cell.hasAttribute('data-v') ? cell.getAttribute('data-v') : cell.textContent.trim();
      }
      rows.sort(function (a, b) {
        var x = key(a), y = key(b);
        if (x === '' || y === '') return (x === '') - (y === '');
        var order = isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
        return down ? -order : order;
      }).forEach(function (row) { body.appendChild(row); });
      first = 0;
      show();
    });
  });
});
// tables have become shorter: the place that the address names has moved
var target = location.hash && document.getElementById(location.hash.slice(1));
if (target) target.scrollIntoView();
